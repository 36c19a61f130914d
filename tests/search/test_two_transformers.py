"""Searches of pipelines whose second transformer takes over within a run, such as Wan 2.2."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import ajour
from ajour import Full, Phase, Plan, Schedule
from ajour.pipelines.session import session_of
from ajour.schedule import DENSE, REUSE
from ajour.search.bands import Bands, steps_of
from ajour.search.calibrate.prompt import Calibration, one_step, probed_steps, weights
from ajour.search.calibrate.trajectory import Trajectory
from ajour.search.estimate import estimate
from ajour.search.provenance import fingerprint
from ajour.search.setup import Setup, uniform_plan
from ajour.search.shape import run_shape
from ajour.search.solve.joint import reused_steps
from ajour.search.solve.reuse import Changes
from ajour.search.work import Work
from tests.pipelines.conftest import make_pipe, make_transformer, run
from tests.search.conftest import (
    TWO_SETTINGS,
    plans_of_two_processes,
    run_search,
    two_transformers,
    what_it_does,
)

STEPS, CUT = 6, 4
ASKED = TWO_SETTINGS
CALL_2 = ASKED.call


@pytest.fixture
def two(make_pipe):
    """A pipeline whose second transformer runs the last two of six steps."""
    return two_transformers(make_pipe)


@pytest.fixture(scope="module")
def found(_parts, tmp_path_factory):
    pipe = two_transformers(make_pipe.__wrapped__(_parts))
    return run_search(pipe, tmp_path_factory.mktemp("two") / "work", ASKED)


def test_the_step_where_the_second_takes_over_is_seen(two):
    computed = []
    for transformer in (two.transformer, two.transformer_2):
        transformer.blocks[0].register_forward_hook(lambda *_: computed.append(1))
    shape = run_shape(Setup(two, CALL_2), "a star")
    assert (shape.steps, shape.passes, shape.cuts) == (STEPS, 1, (CUT,))
    assert len(computed) == 1, "only the first step has to be computed"
    assert type(shape).from_dict(json.loads(json.dumps(vars(shape), default=vars))) == shape


def test_a_band_never_holds_steps_of_both():
    levels = tuple(np.linspace(1, 0.1, 10).tolist())
    assert Bands(levels, 5, (7,)).starts == [0, 2, 5, 7, 9]
    assert Bands(levels, 1, (7,)).starts == [0, 7]
    assert Bands(levels, 20, (7,)).starts == list(range(10))
    assert Bands(levels, 5, (7,)).stages == [(0, 7), (7, 10)]
    assert probed_steps(Bands(levels, 5, (4,))) == [1, 3, 5, 8]
    assert probed_steps(Bands(levels, 5)) == [2, 7]


def changes(steps=10, cut=6):
    rows = np.cumsum(np.random.default_rng(0).normal(size=(steps, 20)), axis=0)
    rows[0] = 0
    return Changes(rows @ rows.T, tuple(np.linspace(1, 0.1, steps).tolist()), (cut,))


def test_reused_steps_do_not_follow_from_the_other_transformer():
    table = changes()
    for history, length in table.gaps:
        stage = {step < 6 for step in (*history, history[0] + length)}
        assert len(stage) == 1, (history, length)
    assert table.history(6) == ()
    assert [table.history(step) for step in (5, 7, 9)] == [(4, 3, 2), (6,), (8, 7, 6)]
    assert one_step(table, 7).slopes == ()
    reused = reused_steps(table.best([1.0] * 10, 1e9, [1.0] * 10))
    assert len(reused) == 7
    assert not {0, 6} & set(reused)


def test_a_layer_counts_by_its_influence_in_its_own_transformer():
    bands = Bands(tuple(np.linspace(1, 0.1, 8).tolist()), 2, (6,))
    assert (probed_steps(bands), bands.middles) == ([1, 4, 6, 7], [3, 7])
    ones = np.ones((2, 1))
    calibration = Calibration(
        np.zeros(0), ones, np.array([[1.0], [2.0], [30.0], [40.0]]), np.array([0.3, 0.1]),
        np.zeros(0), np.zeros(0),
    )  # fmt: skip
    assert weights([calibration], bands) == pytest.approx(np.array([[0.2], [0.1]]))


def test_a_recorded_run_is_replayed_into_both(two):
    setup, trajectory = Setup(two, CALL_2), Trajectory(two)
    with trajectory.record(range(STEPS)):
        exact = setup.latents("a star", 1)
    parts = [two.transformer] * CUT + [two.transformer_2] * (STEPS - CUT)
    assert [call.transformer for call in trajectory.calls] == parts
    assert [trajectory.change(call) for call in trajectory.calls] == [0] * STEPS
    computed = []
    for part in (two.transformer, two.transformer_2):
        part.blocks[0].register_forward_hook(lambda module, *_: computed.append(module))
    with trajectory.replay(CUT - 1):
        assert torch.equal(setup.latents("a star", 1), exact)
    assert computed == [two.transformer.blocks[0]] + [two.transformer_2.blocks[0]] * 2
    assert "forward" not in vars(two.transformer) | vars(two.transformer_2)


def test_what_steps_do_is_what_the_pipeline_runs(two):
    model = uniform_plan(two.transformer, Full()).model
    captured = {"c": ajour.Captured((0.5, 0.5, 0.5, 1.0))}
    plan = Plan(model, captured, {"sparse": (("c", "c"),) * 2}, Schedule((
        Phase(1.0, DENSE), Phase(0.95, "sparse"), Phase(0.8, REUSE), Phase(0.3, "sparse"),
    )))  # fmt: skip
    shape = run_shape(Setup(two, CALL_2), "a star")
    expected = [step.assignment for step in steps_of(plan, shape.noise_levels, shape.cuts)]
    assert expected[CUT] == DENSE  # the second transformer has to measure its own maps
    with ajour.sparse(two, plan, strict=True):
        run(two, steps=STEPS)
        assert list(session_of(two).steps) == expected


def test_both_share_a_plan(found, two):
    assert found.met
    assert CUT in found.bands.starts
    assert found.plan.provenance["fingerprint"]
    with ajour.sparse(two, found.plan, strict=True):
        two("a star", generator=torch.Generator().manual_seed(0), **CALL_2)
        ran = session_of(two).steps
    assert ran == tuple(
        s.assignment for s in steps_of(found.plan, found.bands.noise_levels, (CUT,))
    )


def test_the_same_seed_gives_the_same_plan(found, two, tmp_path):
    assert what_it_does(run_search(two, tmp_path, ASKED).plan) == what_it_does(found.plan)


class Interrupted(Exception):
    pass


def test_interrupted_and_resumed_gives_the_same_plan(found, two, tmp_path, monkeypatch):
    put = Work.put

    def stop(self, key, value):
        put(self, key, value)
        if key == "prompt/0/influence/2":  # of the second transformer
            raise Interrupted

    monkeypatch.setattr(Work, "put", stop)
    with pytest.raises(Interrupted):
        run_search(two, tmp_path, ASKED)
    monkeypatch.setattr(Work, "put", put)
    outcome = run_search(two, tmp_path, ASKED, resume=True)
    assert what_it_does(outcome.plan) == what_it_does(found.plan)


@pytest.mark.slow
def test_two_processes_find_the_same_plan(found, tmp_path):
    for plan in plans_of_two_processes(tmp_path, "two_transformers"):
        assert what_it_does(plan) == what_it_does(found.plan)


def test_the_estimate_says_which_transformer_is_timed(two):
    stages = {stage.stage: stage.work for stage in estimate(two, replace(ASKED, costs=None))}
    assert "in whole passes of the first of two transformers" in stages["time"]
    assert "in 3 bands" in stages["calibrate"]


def test_other_weights_of_the_second_are_noticed(two):
    before = fingerprint(*Setup(two).transformers)
    two.transformer_2 = make_transformer(2)
    assert fingerprint(*Setup(two).transformers) != before
