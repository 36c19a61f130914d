import numpy as np
import pytest
import torch

import ajour
from ajour import Diagonal, Full, MultiDiagonal, Skip, Stripe
from ajour.pipelines.session import session_of
from ajour.search.calibrate import Meter, band_starts, full_plan
from ajour.search.measure import gains, layer_groups
from ajour.search.trajectory import Trajectory, latents, relative_error
from tests.pipelines.conftest import HEADS, LAYERS, SPARSE, run
from tests.search.conftest import CALL

PATTERNS = [Full(), Skip(), Diagonal(0.5), MultiDiagonal(1, 1), Stripe(3)]


def test_bands_share_the_steps():
    assert band_starts(20, 5) == [0, 4, 8, 12, 16]
    assert band_starts(10, 4) == [0, 2, 5, 8]
    assert band_starts(3, 5) == [0, 1, 2]


def test_layers_are_grouped_only_where_they_are_many():
    assert [group.tolist() for group in layer_groups(3)] == [[0], [1], [2]]
    groups = layer_groups(30)
    assert len(groups) == 8
    assert np.concatenate(groups).tolist() == list(range(30))


def test_shapes_and_known_values(pipe):
    with ajour.sparse(pipe, full_plan(pipe.transformer)):
        meter = Meter(session_of(pipe), PATTERNS, bands=2)
        run(pipe, steps=4)
        errors = meter.errors()
    assert errors.shape == (2, LAYERS, HEADS, len(PATTERNS))
    assert np.isfinite(errors).all()
    assert (errors[..., 0] < 1e-10).all()
    assert (errors[..., [1, 4]] > 0).all()


def test_the_error_is_that_of_the_layer_after_its_projection(pipe):
    """One candidate on one head, computed apart by swapping the head's pattern in."""
    heard = []
    with ajour.sparse(pipe, full_plan(pipe.transformer)):
        layer = pipe.transformer.blocks[0].attn1
        meter = Meter(session_of(pipe), [Stripe(3)], bands=1, samples=10**6)
        measure = layer.processor.context.listener

        def listen(*args):
            heard.append(args)
            measure(*args)

        layer.processor.context.listener = listen
        run(pipe, steps=1)
        found = meter.errors()
    q, k, v, out, grid = heard[0]
    weight = layer.to_out[0].weight
    changed = ajour.attention(q, k, v, ajour.lower([Stripe(3), Full()], grid))
    exact = (out.flatten(2) @ weight.T).square().sum()
    expected = ((changed - out).flatten(2) @ weight.T).square().sum() / exact
    assert found[0, 0, 0, 0] == pytest.approx(float(expected), rel=1e-3)


def test_a_run_that_skips_layers_is_refused(pipe):
    with ajour.sparse(pipe, full_plan(pipe.transformer)):
        meter = Meter(session_of(pipe), PATTERNS, bands=2)
        meter._layers[1].processor.context.listener = None
        run(pipe, steps=4)
        with pytest.raises(RuntimeError, match="2 of 4 measurements are missing"):
            meter.errors()


def test_a_replay_starts_in_the_middle(pipe):
    trajectory = Trajectory(pipe)
    with trajectory.record(lambda: False):
        exact = latents(pipe, "a star", 1, **CALL)
    assert len(trajectory.outputs) == 4
    computed = []
    hook = pipe.transformer.blocks[0].register_forward_hook(lambda *_: computed.append(1))
    with trajectory.replay(0.5):
        again = latents(pipe, "a star", 1, **CALL)
    hook.remove()
    assert torch.equal(again, exact)
    assert len(computed) == 2
    assert "forward" not in pipe.transformer.__dict__
    late = ajour.Plan(
        SPARSE.model, SPARSE.patterns, SPARSE.assignments,
        ajour.Schedule((ajour.Phase(1.0, "dense"), ajour.Phase(0.7, "sparse"))),
    )  # fmt: skip
    with ajour.sparse(pipe, late):
        whole = latents(pipe, "a star", 1, **CALL)
        with trajectory.replay(0.5):
            half = latents(pipe, "a star", 1, **CALL)
    assert torch.equal(whole, half)
    assert relative_error(half, exact) > 1e-9


def test_a_replay_leaves_a_forward_of_the_instance_as_it_was(pipe):
    trajectory = Trajectory(pipe)
    calls, transformer = [], pipe.transformer

    def forward(*args, **kwargs):
        calls.append(1)
        return type(transformer).forward(transformer, *args, **kwargs)

    transformer.forward = forward
    with trajectory.record(lambda: False):
        exact = latents(pipe, "a star", 1, **CALL)
    with trajectory.replay(0.5):
        assert torch.equal(latents(pipe, "a star", 1, **CALL), exact)
    assert transformer.forward is forward
    assert len(calls) == 4 + 2


def test_kept_calls_are_computed_again(pipe):
    trajectory = Trajectory(pipe)
    with trajectory.record(lambda: True):
        latents(pipe, "a star", 1, **CALL)
    assert len(trajectory.calls) == 4
    assert trajectory.change(trajectory.calls) == 0
    with ajour.sparse(pipe, SPARSE):
        assert trajectory.change(trajectory.calls[:1]) > 1e-9


def test_gains_weigh_bands_by_what_starting_there_adds():
    one = {
        "levels": [1.0, 0.8, 0.5, 0.2], "onset": [0.7, 0.1], "trial": [[1.0, 1.0], [2.0, 2.0]],
        "influence": [[1.0, 3.0], [2.0, 2.0]],
    }  # fmt: skip
    found = gains([one])
    assert found == pytest.approx(np.array([[0.15, 0.45], [0.025, 0.025]]))
    # The trial choice is then predicted to lose what it did.
    assert (found * one["trial"]).sum() == pytest.approx(0.7)
