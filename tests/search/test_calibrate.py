import numpy as np
import pytest
import torch

import ajour
from ajour import Diagonal, Full, MultiDiagonal, Skip, Stripe
from ajour.pipelines.steps import noise_levels
from ajour.search.bands import Bands
from ajour.search.calibrate.errors import ErrorMeter
from ajour.search.calibrate.prompt import (
    Calibration,
    layer_groups,
    one_step,
    reuse_gains,
    weights,
)
from ajour.search.calibrate.trajectory import Trajectory, relative_error
from ajour.search.setup import Setup, uniform_plan
from ajour.search.solve.plan import build_plan
from ajour.search.solve.reuse import Changes
from tests.pipelines.conftest import HEADS, LAYERS, SPARSE, run
from tests.search.conftest import CALL, CANDIDATES

PATTERNS = [Full(), Skip(), Diagonal(0.5), MultiDiagonal(1, 1), Stripe(3)]


def bands_of(steps, most):
    return Bands(tuple(np.linspace(1, 0.1, steps).tolist()), most)


def test_bands_share_the_steps():
    assert bands_of(20, 5).starts == [0, 4, 8, 12, 16]
    assert bands_of(10, 4).starts == [0, 2, 5, 8]
    assert bands_of(3, 5).starts == [0, 1, 2]
    bands = bands_of(10, 4)
    assert bands.lengths == [2, 3, 3, 2]
    assert bands.middles == [1, 3, 6, 9]
    assert [bands.edge(step) for step in bands.starts] == pytest.approx([1, 0.85, 0.55, 0.25])
    assert [bands.of(step) for step in range(10)] == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3]


def test_layers_are_grouped_only_where_they_are_many():
    assert [group.tolist() for group in layer_groups(3)] == [[0], [1], [2]]
    groups = layer_groups(30)
    assert len(groups) == 8
    assert np.concatenate(groups).tolist() == list(range(30))


def dense(pipe):
    """The session while dense attention runs by the operator."""
    return Setup(pipe).enabled(uniform_plan(pipe.transformer, Full()))


def test_shapes_and_known_values(pipe):
    with dense(pipe) as session:
        meter = ErrorMeter(session, PATTERNS, steps=[1, 3])
        with session.runtimes[0].listen(meter):
            run(pipe, steps=4)
        errors = meter.errors()
    assert errors.shape == (2, LAYERS, HEADS, len(PATTERNS))
    assert np.isfinite(errors).all()
    assert (errors[..., 0] < 1e-10).all()
    assert (errors[..., [1, 4]] > 0).all()


def test_the_error_is_that_of_the_layer_after_its_projection(pipe):
    """One candidate on one head, computed apart by swapping the head's pattern in."""
    calls = []
    with dense(pipe) as session:
        meter = ErrorMeter(session, [Stripe(3)], steps=[0], samples=10**6)
        with (
            session.runtimes[0].listen(meter),
            session.runtimes[0].listen(lambda *args: calls.append(args)),
        ):
            run(pipe, steps=1)
        errors = meter.errors()
    layer, q, k, v, out, grid = calls[0]
    assert layer == 0
    weight = pipe.transformer.blocks[0].attn1.to_out[0].weight
    changed = ajour.attention(q, k, v, ajour.lower([Stripe(3), Full()], grid))
    exact = (out.flatten(2) @ weight.T).square().sum()
    expected = ((changed - out).flatten(2) @ weight.T).square().sum() / exact
    assert errors[0, 0, 0, 0] == pytest.approx(float(expected), rel=1e-3)


def test_a_run_that_skips_layers_is_refused(pipe):
    with dense(pipe) as session:
        meter = ErrorMeter(session, PATTERNS, steps=[1, 3])
        with session.runtimes[0].listen(lambda layer, *rest: layer or meter(layer, *rest)):
            run(pipe, steps=4)
        with pytest.raises(RuntimeError, match="2 of 4 measurements are missing"):
            meter.errors()


def latents(pipe):
    return Setup(pipe, CALL).latents("a star", 1)


def test_a_replay_starts_in_the_middle(pipe):
    trajectory = Trajectory(pipe)
    with trajectory.record():
        exact = latents(pipe)
    assert len(trajectory.outputs) == 4
    computed = []
    hook = pipe.transformer.blocks[0].register_forward_hook(lambda *_: computed.append(1))
    with trajectory.replay(2):
        again = latents(pipe)
    hook.remove()
    assert torch.equal(again, exact)
    assert len(computed) == 2
    assert "forward" not in pipe.transformer.__dict__
    late = ajour.Plan(
        SPARSE.model, SPARSE.patterns, SPARSE.assignments,
        ajour.Schedule((ajour.Phase(1.0, "dense"), ajour.Phase(0.7, "sparse"))),
    )  # fmt: skip
    with ajour.sparse(pipe, late):
        whole = latents(pipe)
        with trajectory.replay(2):
            half = latents(pipe)
    assert torch.equal(whole, half)
    assert relative_error(half, exact) > 1e-9


def test_a_replay_leaves_a_forward_of_the_instance_as_it_was(pipe):
    trajectory = Trajectory(pipe)
    calls, transformer = [], pipe.transformer

    def forward(*args, **kwargs):
        calls.append(1)
        return type(transformer).forward(transformer, *args, **kwargs)

    transformer.forward = forward
    with trajectory.record():
        exact = latents(pipe)
    with trajectory.replay(2):
        assert torch.equal(latents(pipe), exact)
    assert transformer.forward is forward
    assert len(calls) == 4 + 2


def test_kept_calls_are_computed_again(pipe):
    trajectory = Trajectory(pipe)
    with trajectory.record(range(4)):
        latents(pipe)
    assert len(trajectory.calls) == 4
    assert trajectory.change(trajectory.calls[0]) == 0
    with Setup(pipe).enabled(SPARSE) as session, session.runtimes[0].run_as("sparse"):
        assert trajectory.change(trajectory.calls[0]) > 1e-9


def test_weights_of_bands_are_the_errors_that_starting_there_adds():
    data = {
        "onset": [0.7, 0.1], "errors": [[[[]]] * 2] * 2,
        "trial": [[1.0, 1.0], [2.0, 2.0]], "influence": [[1.0, 3.0], [2.0, 2.0]],
        "changes": [[0.0] * 4] * 4, "reuse": [0.0] * 2,
    }  # fmt: skip
    calibration = Calibration.from_dict(data, (2, 2, 1, 0), probed=2, steps=4)
    expected = np.array([[0.15, 0.45], [0.025, 0.025]])
    assert weights([calibration], bands_of(4, 2)) == pytest.approx(expected)
    # The trial choice is then predicted to lose what it did.
    assert (expected * calibration.trial).sum() == pytest.approx(0.7)


def test_errors_of_reused_steps_are_those_of_a_run(pipe):
    """Predicted from recorded outputs, and measured by reusing a step, with guidance."""
    call = CALL | {"num_inference_steps": 8, "guidance_scale": 3.0}
    setup = Setup(pipe, call)
    trajectory = Trajectory(pipe)
    with trajectory.record():
        exact = setup.latents("a star", 1)
    assert len(trajectory.guided) == 8
    levels = tuple(noise_levels(pipe.scheduler))
    changes = Changes(trajectory.changes(exact), levels)
    gap = one_step(changes, 6)
    plan = build_plan(setup.model, CANDIDATES, np.full((4, 2, 2), -1), Bands(levels, 4), [gap])
    again = Trajectory(pipe)
    with setup.enabled(plan) as session, again.record():
        setup.latents("a star", 1)
        assert session.steps == ("dense",) * 6 + ("reuse", "dense")
    missed = (levels[6] - levels[7]) * (again.guided[6] - trajectory.guided[6]).double()
    spread = (exact - exact.mean()).double().square().sum()
    assert gap.error == pytest.approx(float(missed.square().sum() / spread), rel=1e-3)
    assert error_of(changes, (5, 4, 3), gap.slopes) == pytest.approx(gap.error, rel=1e-2)
    for slopes in ((0.0, 0.0), (1.0, 0.0), gap.slopes[::-1]):  # any other slopes are worse
        assert error_of(changes, (5, 4, 3), slopes) >= gap.error * (1 - 1e-6)


def error_of(changes, history, slopes):
    """The error of reusing one step with given slopes, term by term."""
    levels, step = np.array(changes.noise_levels), history[0] + 1
    rest = np.zeros(len(levels))
    rest[step] = 1.0
    for slope, end, start in zip(slopes, history, history[1:], strict=False):
        rest[start + 1 : end + 1] -= (
            slope * (levels[step] - levels[history[0]]) / (levels[end] - levels[start])
        )
    return changes.widths[step] ** 2 * rest @ changes.products @ rest


def test_gains_are_measured_over_predicted_and_lie_between_bands(pipe):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(8, 5))
    rows[0] = 0
    changes = Changes(rows @ rows.T, bands_of(8, 2).noise_levels)
    measured = [8 * one_step(changes, 2).error, 2 * one_step(changes, 6).error]
    calibration = Calibration(*[np.zeros(0)] * 4, changes.products, np.array(measured))
    gains = reuse_gains([calibration], bands_of(8, 2))
    assert gains[[0, 2, 4, 6, 7]] == pytest.approx([8, 8, 4, 2, 2])
