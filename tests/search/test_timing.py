import numpy as np
import pytest
import torch

from ajour import Diagonal, Full, Skip, TokenGrid
from ajour.search.passes import time_passes
from ajour.search.probe import probe
from ajour.search.timing import Costs, time_layers
from tests.pipelines.conftest import HEADS, LATE, LAYERS
from tests.search.conftest import CALL, GRID, given_costs


def test_less_work_costs_less():
    found = time_layers(
        [Full(), Diagonal(1.0), Skip()], TokenGrid(12, 12, 12), 2, 32, torch.float32,
        torch.device("cpu"), rounds=3,
    )  # fmt: skip
    assert found.heads[0] > found.heads[1] > found.heads[2] >= 0
    assert found.layer >= 0
    assert found.dense_layer > 0
    assert len(found.held_out) == 12


def test_the_fit_recovers_a_linear_device(monkeypatch):
    """On a clock that is linear in the heads, held-out mixes are predicted exactly."""
    own = {Full(): 3.0, Diagonal(1.0): 2.0, Skip(): 0.5}
    candidates = list(own)

    def clock(call, device):
        table = call.args[3] if hasattr(call, "args") else None
        if table is None:
            return 9.0
        return 0.7 + sum(own[candidates[row]] for row in table.head_rows.tolist())

    monkeypatch.setattr("ajour.search.timing.seconds", clock)
    found = time_layers(
        candidates, TokenGrid(3, 8, 7), 4, 16, torch.float32, torch.device("cpu"), rounds=1
    )
    assert found.dense_layer == 9.0
    predicted, measured = np.array(found.held_out).T
    assert predicted == pytest.approx(measured)
    assert [x - found.heads[2] for x in found.heads] == pytest.approx([2.5, 1.5, 0.0])


def test_costs_survive_json_and_predict_a_pass():
    costs = Costs.from_dict(given_costs())
    assert Costs.from_dict(costs.to_dict()) == costs
    choice = np.zeros((LAYERS, HEADS), dtype=np.int64)
    assert costs.sparse_pass(choice) == costs.other + LAYERS * HEADS * costs.heads[0]
    assert costs.error == pytest.approx((0.1 / 1.1 + 0.1 / 1.9) / 2)


@pytest.mark.parametrize(
    "change",
    [{"names": ["full"]}, {"heads": ["fast"]}, {"dense_pass": 0}, {"passes": 0}, {"extra": 1}],
    ids=str,
)
def test_bad_costs_are_refused(change):
    with pytest.raises(ValueError, match="table of costs"):
        Costs.from_dict(given_costs() | change)
    with pytest.raises(ValueError, match="not a table of costs"):
        Costs.from_dict({"names": []})


def test_a_probe_tells_grid_steps_and_passes(pipe):
    found = probe(pipe, "a star", rounds=1, **CALL | {"guidance_scale": 2.0})
    assert (found.grid, found.steps, found.passes) == (GRID, 4, 2)
    assert min(found.dense_pass, found.skip_pass) > 0
    assert found.around > 0


def test_passes_are_timed_by_assignment(pipe):
    levels = [1.0, 0.9, 0.6, 0.3]
    found = time_passes(pipe, LATE, levels, "a star", rounds=1, **CALL)
    spent = found["pass_seconds"]
    assert set(spent) == {"dense", "sparse"}
    total = spent["dense"] + 3 * spent["sparse"]
    assert found["speedup"] == pytest.approx(4 * spent["dense"] / total)
    assert "_ajour" not in pipe.__dict__
