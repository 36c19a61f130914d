from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel

from ajour import Captured, Diagonal, Full, Phase, Pyramid, Schedule, Skip
from ajour.pipelines import stopwatch
from ajour.pipelines.enable import is_enabled
from ajour.pipelines.runtime import TransformerRuntime
from ajour.search import estimate
from ajour.search.provenance import origin
from ajour.search.setup import Setup
from ajour.search.shape import RunShape, run_shape
from ajour.search.timing import layers, passes
from ajour.search.timing.costs import Costs
from ajour.search.timing.fit import design, fit, typical_times
from ajour.search.timing.layers import HELD_OUT, layer_rows, measure_costs
from ajour.search.timing.passes import MEASURING, TimedPasses, time_passes, time_plan
from tests.pipelines.conftest import HEADS, LATE, LAYERS, make_plan, make_transformer
from tests.search.conftest import CALL, GRID, given_costs, settings

CAPTURED = Captured((0.2, 0.2, 0.2, 1.0))


@pytest.fixture
def ticks(monkeypatch):
    """A clock that advances by a second whenever it is read."""
    reads = iter(range(10**9))
    monkeypatch.setattr(stopwatch, "now", lambda device: float(next(reads)))


@pytest.mark.parametrize(("candidates", "layers"), [(3, 1), (3, 2), (50, 30), (7, 200)])
def test_all_candidates_and_as_many_mixes_fill_whole_passes(candidates, layers):
    rows = layer_rows(candidates, layers, 4)
    assert len(rows) % layers == 0
    assert len(rows) >= 2 * candidates + HELD_OUT > len(rows) - layers
    assert (rows[:candidates] == np.arange(candidates)[:, None]).all()
    assert set(np.unique(rows)) == set(range(candidates))
    assert (layer_rows(candidates, layers, 4) == rows).all()


def test_layers_times_are_those_of_the_rows_they_run(pipe, monkeypatch):
    """A clock that tells a layer's heads: the fit has to give them back, all in their places."""
    candidates = {"full": Full(), "skip": Skip(), "near": Diagonal(1.0), "far": Pyramid(0, 0, 0)}
    seconds = dict(zip(candidates, (5.0, 1.0, 2.0, 3.0), strict=True)) | {"skipped": 1.0}
    rng = np.random.default_rng(0)

    def timed(_setup, plan, *_):
        slow = np.array([1.0, 0.98, 1.3])[:, None]  # rounds; the median counts
        within = {
            name: slow * [0.5 + ("far" in row) + sum(map(seconds.get, row)) for row in rows]
            for name, rows in plan.assignments.items()
        }
        passes = {name: (7 + times.sum(axis=1)).tolist() for name, times in within.items()}
        assert len({tuple(map(tuple, rows)) for rows in plan.assignments.values()}) > 2
        dense = {"dense": np.zeros((3, LAYERS))}
        orders = [[*rng.permutation(list(within)), "dense"] for _ in range(3)]
        return TimedPasses({"dense": [40.0] * 3} | passes, dense | within, orders)

    monkeypatch.setattr(layers, "time_passes", timed)
    costs = measure_costs(Setup(pipe, CALL), candidates, GRID, 1, "a star")
    alone = HEADS * np.array(costs.heads) + costs.layer + costs.pooling * np.array(costs.pooled)
    assert alone == pytest.approx(HEADS * np.array([5, 1, 2, 3]) + 0.5 + np.array([0, 0, 0, 1]))
    assert (costs.dense_pass, costs.other) == pytest.approx((40.0, 7.0))
    assert costs.error == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("first", [0.0, 0.35])
def test_the_fit_recovers_layers_whose_first_heads_cost_more(first):
    rng = np.random.default_rng(0)
    rows = [[index] * 4 for index in range(6)] + rng.integers(0, 6, (8, 4)).tolist()
    used = np.array([np.bincount(row, minlength=6) for row in rows], dtype=float)
    seconds = np.array([0.0, 1.0, 1.5, 2.0, 3.0, 5.0])
    pooled = np.arange(6) % 3 == 1
    measured = 0.7 + 0.4 * used[:, pooled].any(axis=1) + (used + first * (used > 0)) @ seconds
    share, times = fit(used, pooled, measured)
    assert share == pytest.approx(first)
    assert design(used, pooled, share) @ times == pytest.approx(measured)
    if first:  # else a layer's fixed time cannot be told apart from its heads
        assert times == pytest.approx([0.7, 0.4, *seconds])


def test_a_machine_of_changing_speed_is_seen_through():
    rng = np.random.default_rng(0)
    true = rng.uniform(1, 5, 60)
    orders = np.array([rng.permutation(60) for _ in range(5)])
    slow = np.where(np.arange(300) % 140 < 50, 1.8, 1.0).reshape(5, 60)
    assert typical_times(true[orders] * slow, orders) == pytest.approx(true, rel=0.02)


def test_costs_survive_json_and_predict_a_pass():
    given = Costs.from_dict(given_costs())
    assert Costs.from_dict(asdict(given)) == given
    choice = np.zeros((LAYERS, HEADS), dtype=np.int64)
    assert given.attention(choice) == LAYERS * HEADS * given.heads[0]
    given = replace(given, layer=0.1, first=0.5, pooling=0.2)
    assert given.attention(choice) == pytest.approx(LAYERS * (0.1 + (HEADS + 0.5) * given.heads[0]))
    pooled = given.pooled.index(True)
    choice[0, :2] = pooled
    rest = HEADS - 2 + 0.5 if HEADS > 2 else 0
    first = 0.1 + 0.2 + rest * given.heads[0] + 2.5 * given.heads[pooled]
    others = (LAYERS - 1) * (0.1 + (HEADS + 0.5) * given.heads[0])
    assert given.attention(choice) == pytest.approx(first + others)
    assert given.error == pytest.approx((0.1 / 1.1 + 0.1 / 1.9) / 2)


def test_costs_are_measured_with_what_they_hold_for(pipe):
    candidates = {"full": Full(), "skip": Skip(), "near": Diagonal(1.0)}
    costs = measure_costs(Setup(pipe, CALL), candidates, GRID, 1, "a star")
    assert costs.names == tuple(candidates)
    assert costs.conditions == given_costs()["conditions"]
    assert min(costs.dense_pass, costs.other) > 0
    assert min(costs.heads) >= 0
    assert len(costs.held_out) == HELD_OUT


@pytest.mark.parametrize(
    "change",
    [
        {"names": ["full"]}, {"heads": ["fast"]}, {"dense_pass": 0}, {"passes": 0}, {"extra": 1},
        {"layer": float("nan")}, {"other": float("inf")}, {"dense_pass": -1e-9}, {"first": "0.1"},
        {"heads": [10**400]}, {"passes": 1.0}, {"passes": True}, {"passes": None},
        {"held_out": [[1.0, 0.0]]}, {"held_out": [[1.0]]}, {"held_out": 7}, {"conditions": 7},
        {"pooled": [True]}, {"pooled": [1] * len(given_costs()["names"])}, {"pooling": -1.0},
    ],
    ids=lambda change: f"{change!s:.40}",
)  # fmt: skip
def test_bad_costs_are_refused(change):
    with pytest.raises(ValueError, match="table of costs"):
        Costs.from_dict(given_costs() | change)


@pytest.mark.parametrize("data", [{"names": []}, [], 7, None], ids=str)
def test_data_that_is_no_table_of_costs_is_refused(data):
    with pytest.raises(ValueError, match="not a table of costs"):
        Costs.from_dict(data)


def test_an_error_names_what_costs_of_an_earlier_version_lack():
    costs = given_costs()
    del costs["conditions"]
    with pytest.raises(ValueError, match="lacks .conditions.; a search of this version"):
        Costs.from_dict(costs)


@pytest.fixture
def loaded_pipe(make_pipe, tmp_path):
    """A pipeline whose transformer was loaded in bfloat16: what it keeps in float32 comes first."""
    make_transformer().save_pretrained(tmp_path)
    transformer = WanTransformer3DModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert next(transformer.parameters()).dtype == torch.float32
    return make_pipe(transformer=transformer.requires_grad_(False))


class Seen(Exception):
    pass


def test_scoring_is_timed_in_the_dtype_that_attention_runs_in(loaded_pipe, monkeypatch):
    def see(*args):
        raise Seen(*(x.dtype for x in args if isinstance(x, torch.Tensor)))

    monkeypatch.setattr(estimate, "score", see)
    with pytest.raises(Seen) as seen:
        estimate.estimate(loaded_pipe, settings())
    assert set(seen.value.args) == {torch.bfloat16}
    assert origin(Setup(loaded_pipe))["dtype"] == "bfloat16"


def test_a_short_run_has_grid_steps_and_passes_of_a_whole_run(pipe):
    shape = run_shape(Setup(pipe, CALL | {"guidance_scale": 2.0}), "a star")
    assert (shape.grid, shape.steps, shape.passes) == (GRID, 4, 2)
    assert RunShape.from_dict(asdict(shape)) == shape


def test_passes_are_timed_by_assignment(pipe, ticks):
    levels = [1.0, 0.9, 0.6, 0.3]
    times = time_plan(Setup(pipe, CALL), LATE, levels, "a star", passes=1, rounds=1)
    assert times.pass_seconds == {"dense": 1, "sparse": 1 + 2 * LAYERS}
    assert times.attention_seconds == LAYERS
    assert times.speedup == pytest.approx(4 / (1 + 3 * (1 + 2 * LAYERS)))
    assert not is_enabled(pipe)


@pytest.fixture
def runs(monkeypatch):
    """The arguments of every `run_as`: assignment, and whether maps are measured."""
    calls, run_as = [], TransformerRuntime.run_as

    def spy(self, assignment, measure=False):
        calls.append((assignment, measure))
        return run_as(self, assignment, measure)

    monkeypatch.setattr(TransformerRuntime, "run_as", spy)
    return calls


@pytest.mark.parametrize("steps", [2, 4])  # in a run of 2, the first would measure maps
def test_all_captured_assignments_are_timed_sparse(pipe, runs, ticks, steps):
    plan = replace(
        LATE, patterns={"near": Diagonal(1.0), "best": CAPTURED},
        assignments={name: ((name,) * HEADS,) * LAYERS for name in ("near", "best")},
        schedule=Schedule((Phase(1.0, "near"), Phase(0.5, "best"))),
    )  # fmt: skip
    setup = Setup(pipe, CALL | {"num_inference_steps": steps})
    times = time_passes(setup, plan, "a star", 1)
    order = times.orders[0]
    names = ["dense", "near", "best"]
    assert runs == [("dense", True), *((name, False) for name in [*names, *order])]
    assert sorted(order) == sorted(names)
    assert list(times.layers) == list(times.passes) == names
    assert (times.layers["dense"] == 0).all()
    for name in ("near", "best"):
        assert (times.layers[name] == np.ones((1, LAYERS))).all()


@pytest.mark.parametrize("per_step", [1, 2])
def test_measuring_captured_maps_counts_in_the_speed(pipe, monkeypatch, runs, per_step):
    """Every measured pass takes a second longer; of a step's passes only the first measures."""
    monkeypatch.setattr(passes, "timed", lambda call, device: (call(), 1.0 + runs[-1][1]))
    plan = make_plan([CAPTURED] * HEADS)
    levels = [1.0, 0.6, 0.3]
    times = time_plan(Setup(pipe, CALL), plan, levels, "a star", passes=per_step, rounds=2)
    assert times.pass_seconds == {"dense": 1.0, "sparse": 1.0, MEASURING: 1 + 1 / per_step}
    assert times.speedup == pytest.approx(3 / (3 + 1 / per_step))
