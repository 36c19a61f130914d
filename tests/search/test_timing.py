from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel

from ajour import Captured, Diagonal, Full, Phase, Plan, Pyramid, Schedule, Skip, TokenGrid
from ajour.pipelines.session import session_of
from ajour.search import costs, estimate
from ajour.search.calibrate import full_plan
from ajour.search.costs import HELD_OUT, Costs, layer_rows, measure_costs
from ajour.search.passes import MEASURING, Turns, pass_turns, steps_run, time_passes
from ajour.search.probe import probe
from ajour.search.provenance import origin
from ajour.search.timing import design, fit, typical_times
from tests.pipelines.conftest import HEADS, LATE, LAYERS, make_plan, make_transformer
from tests.search.conftest import CALL, GRID, given_costs, settings


@pytest.mark.parametrize(("candidates", "layers"), [(3, 1), (3, 2), (50, 30), (7, 200)])
def test_all_candidates_and_as_many_mixes_fill_whole_passes(candidates, layers):
    rows = layer_rows(candidates, layers, 4)
    assert len(rows) % layers == 0
    assert len(rows) >= 2 * candidates + HELD_OUT > len(rows) - layers
    assert (rows[:candidates] == np.arange(candidates)[:, None]).all()
    assert set(np.unique(rows)) == set(range(candidates))
    assert (layer_rows(candidates, layers, 4) == rows).all()


def test_less_work_costs_less(pipe):
    call = CALL | {"num_frames": 37, "height": 192, "width": 192}
    candidates = {"full": Full(), "near": Diagonal(1.0), "skip": Skip()}
    model, grid = full_plan(pipe.transformer).model, TokenGrid(10, 12, 12)
    found = measure_costs(pipe, model, candidates, grid, 1, "a star", None, call)
    assert found.heads[0] > found.heads[1] > found.heads[2] >= 0
    assert found.layer >= 0
    assert len(found.held_out) == HELD_OUT


def test_layers_times_are_those_of_the_rows_they_run(pipe, monkeypatch):
    """A clock that tells a layer's heads: the fit has to give them back, all in their places."""
    candidates = {"full": Full(), "skip": Skip(), "near": Diagonal(1.0), "far": Pyramid(0, 0, 0)}
    own = dict(zip(candidates, (5.0, 1.0, 2.0, 3.0), strict=True)) | {"skipped": 1.0}

    rng = np.random.default_rng(0)

    def turns(_pipe, plan, *_, **_call):
        slow = np.array([1.0, 0.98, 1.3])[:, None]  # rounds; the median counts
        layers = {
            name: slow * [0.5 + ("far" in row) + sum(map(own.get, row)) for row in rows]
            for name, rows in plan.assignments.items()
        }
        passes = {name: (7 + times.sum(axis=1)).tolist() for name, times in layers.items()}
        assert len({tuple(map(tuple, rows)) for rows in plan.assignments.values()}) > 2
        dense = {"dense": np.zeros((3, LAYERS))}
        orders = [[*rng.permutation(list(layers)), "dense"] for _ in range(3)]
        return Turns({"dense": [40.0] * 3} | passes, dense | layers, orders)

    monkeypatch.setattr(costs, "pass_turns", turns)
    model = full_plan(pipe.transformer).model
    found = measure_costs(pipe, model, candidates, GRID, 1, "a star", None, CALL)
    alone = HEADS * np.array(found.heads) + found.layer + found.pooling * np.array(found.pooled)
    assert alone == pytest.approx(HEADS * np.array([5, 1, 2, 3]) + 0.5 + np.array([0, 0, 0, 1]))
    assert (found.dense_pass, found.other) == pytest.approx((40.0, 7.0))
    assert found.error == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("first", [0.0, 0.35])
def test_the_fit_recovers_layers_whose_first_heads_cost_more(first):
    rng = np.random.default_rng(0)
    rows = [[index] * 4 for index in range(6)] + rng.integers(0, 6, (8, 4)).tolist()
    used = np.array([np.bincount(row, minlength=6) for row in rows], dtype=float)
    own = np.array([0.0, 1.0, 1.5, 2.0, 3.0, 5.0])
    pooled = np.arange(6) % 3 == 1
    measured = 0.7 + 0.4 * used[:, pooled].any(axis=1) + (used + first * (used > 0)) @ own
    share, times = fit(used, pooled, measured)
    assert share == pytest.approx(first)
    assert design(used, pooled, share) @ times == pytest.approx(measured)
    if first:  # else a layer's fixed time cannot be told from its heads'
        assert times == pytest.approx([0.7, 0.4, *own])


def test_a_machine_of_changing_speed_is_seen_through():
    rng = np.random.default_rng(0)
    true = rng.uniform(1, 5, 60)
    orders = np.array([rng.permutation(60) for _ in range(5)])
    slow = np.where(np.arange(300) % 140 < 50, 1.8, 1.0).reshape(5, 60)
    found = typical_times(true[orders] * slow, orders)
    assert found == pytest.approx(true, rel=0.02)


def test_costs_survive_json_and_predict_a_pass():
    given = Costs.from_dict(given_costs())
    assert Costs.from_dict(given.to_dict()) == given
    choice = np.zeros((LAYERS, HEADS), dtype=np.int64)
    assert given.attention(choice) == LAYERS * HEADS * given.heads[0]
    given = replace(given, layer=0.1, first=0.5, pooling=0.2)
    assert given.attention(choice) == pytest.approx(LAYERS * (0.1 + (HEADS + 0.5) * given.heads[0]))
    one = given.pooled.index(True)
    choice[0, :2] = one
    rest = HEADS - 2 + 0.5 if HEADS > 2 else 0
    first = 0.1 + 0.2 + rest * given.heads[0] + 2.5 * given.heads[one]
    others = (LAYERS - 1) * (0.1 + (HEADS + 0.5) * given.heads[0])
    assert given.attention(choice) == pytest.approx(first + others)
    assert given.error == pytest.approx((0.1 / 1.1 + 0.1 / 1.9) / 2)


def test_costs_are_measured_with_what_they_hold_for(pipe):
    candidates = {"full": Full(), "skip": Skip(), "near": Diagonal(1.0)}
    model = full_plan(pipe.transformer).model
    found = measure_costs(pipe, model, candidates, GRID, 1, "a star", None, CALL)
    assert found.names == tuple(candidates)
    assert found.conditions == given_costs()["conditions"]
    assert min(found.dense_pass, found.other) > 0
    assert min(found.heads) >= 0


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
def test_what_is_no_table_of_costs_is_refused(data):
    with pytest.raises(ValueError, match="not a table of costs"):
        Costs.from_dict(data)


def test_costs_of_an_earlier_version_tell_what_they_lack():
    costs = given_costs()
    del costs["conditions"]
    with pytest.raises(ValueError, match="lacks conditions; a search of this version"):
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
    assert origin(loaded_pipe)["dtype"] == "bfloat16"


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
    assert 0 < found["attention_seconds"] < spent["sparse"]
    assert found["speedup"] == pytest.approx(4 * spent["dense"] / total)
    assert "_ajour" not in pipe.__dict__


def test_the_step_that_measures_captured_patterns_is_told_apart():
    captured = Captured((0.2, 0.2, 0.2, 1.0))
    names = {"near": Diagonal(1.0), "best": captured}
    plan = Plan(
        LATE.model, names,
        {name: ((name,) * HEADS,) * LAYERS for name in names},
        Schedule((Phase(1.0, "near"), Phase(0.5, "best"))),
    )  # fmt: skip
    assert steps_run(plan, [1.0, 0.8, 0.4, 0.2]) == ["near", "near", MEASURING, "best"]
    late = replace(plan, schedule=Schedule((Phase(1.0, "dense"), Phase(0.5, "best"))))
    assert steps_run(late, [1.0, 0.8, 0.4, 0.2]) == ["dense", MEASURING, "best", "best"]
    assert steps_run(replace(plan, schedule=Schedule((Phase(1.0, "best"),))), [1.0, 0.4]) == [
        MEASURING, "best",
    ]  # fmt: skip


@pytest.mark.parametrize("steps", [2, 4])  # of 2, the second alone would ask for captured maps
def test_all_captured_assignments_are_timed_sparse(pipe, steps):
    captured = Captured((0.2, 0.2, 0.2, 1.0))
    plan = Plan(
        LATE.model, {"near": Diagonal(1.0), "best": captured},
        {name: ((name,) * HEADS,) * LAYERS for name in ("near", "best")},
        Schedule((Phase(1.0, "near"), Phase(0.5, "best"))),
    )  # fmt: skip
    ran = []
    hook = pipe.transformer.register_forward_hook(
        lambda *_: ran.append(session_of(pipe).runtimes[0].phase)
    )
    turns = pass_turns(pipe, plan, "a star", None, 1, **CALL | {"num_inference_steps": steps})
    hook.remove()
    assert ran == ["dense", "best", "near", "dense", *turns.orders[0]]
    assert sorted(turns.orders[0]) == ["best", "dense", "near"]
    assert list(turns.layers) == list(turns.passes) == ["dense", "best", "near"]
    assert (turns.layers["dense"] == 0).all()
    for name in ("best", "near"):
        assert turns.layers[name].shape == (1, LAYERS)
        assert (turns.layers[name] > 0).all()
        assert turns.layers[name].sum() < turns.passes[name][0]


@pytest.mark.parametrize("passes", [1, 2])
def test_measuring_captured_maps_counts_in_the_speed(pipe, monkeypatch, passes):
    """Every measured pass takes a second longer; of a step's passes only the first measures."""
    plan = make_plan([Captured((0.2, 0.2, 0.2, 1.0))] * HEADS)
    runtimes = []

    def seconds(call, _device):
        call()
        runtimes[:] = session_of(pipe).runtimes
        return 1.0 + (runtimes[0]._measure is not None)

    monkeypatch.setattr("ajour.search.passes.seconds", seconds)
    levels = [1.0, 0.6, 0.3]
    found = time_passes(pipe, plan, levels, "a star", rounds=2, passes=passes, **CALL)
    assert found["pass_seconds"] == {"dense": 1.0, "sparse": 1.0, MEASURING: 1 + 1 / passes}
    assert found["speedup"] == pytest.approx(3 / (3 + 1 / passes))
