import numpy as np
import pytest
import torch

import ajour
from ajour import Diagonal, Full, MultiDiagonal, Skip, Stripe
from ajour.search.bands import Bands
from ajour.search.calibrate.errors import ErrorMeter
from ajour.search.calibrate.prompt import Calibration, layer_groups, weights
from ajour.search.calibrate.trajectory import Trajectory, relative_error
from ajour.search.setup import Setup, uniform_plan
from tests.pipelines.conftest import HEADS, LAYERS, SPARSE, run
from tests.search.conftest import CALL

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
    assert bands.edges == pytest.approx([1, 0.85, 0.55, 0.25])
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
        meter = ErrorMeter(session, PATTERNS, bands=2)
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
        meter = ErrorMeter(session, [Stripe(3)], bands=1, samples=10**6)
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
        meter = ErrorMeter(session, PATTERNS, bands=2)
        with session.runtimes[0].listen(lambda layer, *rest: layer or meter(layer, *rest)):
            run(pipe, steps=4)
        with pytest.raises(RuntimeError, match="2 of 4 measurements are missing"):
            meter.errors()


def latents(pipe):
    return Setup(pipe, CALL).latents("a star", 1)


def test_a_replay_starts_in_the_middle(pipe):
    trajectory = Trajectory(pipe.transformer)
    with trajectory.record(lambda: False):
        exact = latents(pipe)
    assert len(trajectory.outputs) == 4
    computed = []
    hook = pipe.transformer.blocks[0].register_forward_hook(lambda *_: computed.append(1))
    with trajectory.replay(0.5):
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
        with trajectory.replay(0.5):
            half = latents(pipe)
    assert torch.equal(whole, half)
    assert relative_error(half, exact) > 1e-9


def test_a_replay_leaves_a_forward_of_the_instance_as_it_was(pipe):
    trajectory = Trajectory(pipe.transformer)
    calls, transformer = [], pipe.transformer

    def forward(*args, **kwargs):
        calls.append(1)
        return type(transformer).forward(transformer, *args, **kwargs)

    transformer.forward = forward
    with trajectory.record(lambda: False):
        exact = latents(pipe)
    with trajectory.replay(0.5):
        assert torch.equal(latents(pipe), exact)
    assert transformer.forward is forward
    assert len(calls) == 4 + 2


def test_kept_calls_are_computed_again(pipe):
    trajectory = Trajectory(pipe.transformer)
    with trajectory.record(lambda: True):
        latents(pipe)
    assert len(trajectory.calls) == 4
    assert trajectory.change(trajectory.calls[0]) == 0
    with Setup(pipe).enabled(SPARSE) as session, session.runtimes[0].run_as("sparse"):
        assert trajectory.change(trajectory.calls[0]) > 1e-9


def test_weights_of_bands_are_the_errors_that_starting_there_adds():
    data = {
        "onset": [0.7, 0.1], "errors": [[[[]]] * 2] * 2,
        "trial": [[1.0, 1.0], [2.0, 2.0]], "influence": [[1.0, 3.0], [2.0, 2.0]],
    }  # fmt: skip
    calibration = Calibration.from_dict(data, (2, 2, 1, 0), probed=2)
    expected = np.array([[0.15, 0.45], [0.025, 0.025]])
    assert weights([calibration], bands_of(4, 2)) == pytest.approx(expected)
    # The trial choice is then predicted to lose what it did.
    assert (expected * calibration.trial).sum() == pytest.approx(0.7)
