import numpy as np
import pytest
import torch

import ajour
from ajour import Diagonal, Full, MultiDiagonal, Skip, Stripe
from ajour.search import calibrate
from ajour.search.calibrate import full_plan
from tests.pipelines.conftest import HEADS, LAYERS, run

OPTIONS = {
    "num_frames": 9, "height": 128, "width": 112, "num_inference_steps": 4, "guidance_scale": 1.0,
    "max_sequence_length": 32,
}  # fmt: skip
CANDIDATES = [Full(), Skip(), Diagonal(0.5), MultiDiagonal(1, 1), Stripe(3)]


@pytest.fixture
def errors(pipe):
    return calibrate(pipe, CANDIDATES, ["a red circle", "a star"], [0.9, 0.3], **OPTIONS)


def test_shapes_and_known_values(errors):
    assert errors.values.shape == (2, LAYERS, HEADS, len(CANDIDATES))
    assert np.isfinite(errors.values).all()
    assert errors.densities[0] == 1
    assert errors.densities[1] == 0
    assert (errors.values[..., 0] < 1e-10).all()
    # Skipping every head loses the whole layer, up to what the heads share.
    assert (errors.values[..., 1] > 0).all()


def test_the_pipeline_is_left_alone(pipe):
    before = run(pipe)
    calibrate(pipe, CANDIDATES[:2], ["a star"], [0.5], **OPTIONS)
    assert torch.equal(run(pipe), before)


def test_the_error_is_that_of_the_layer_after_its_projection(pipe):
    """One candidate on one head, computed apart by swapping the head's pattern in."""
    heard = []
    with ajour.sparse(pipe, full_plan(pipe.transformer)):
        layer = pipe.transformer.blocks[0].attn1
        layer.processor.context.listener = lambda *args: heard.append(args)
        run(pipe, steps=1)
    q, k, v, out, grid = heard[0]
    weight = layer.to_out[0].weight
    table = ajour.lower([Stripe(3), Full()], grid)
    changed = ajour.attention(q, k, v, table)
    exact = (out.flatten(2) @ weight.T).square().sum()
    expected = ((changed - out).flatten(2) @ weight.T).square().sum() / exact
    found = calibrate(
        pipe, [Stripe(3)], ["a red circle"], [1.0], **OPTIONS | {"num_inference_steps": 1}
    )
    assert found.values[0, 0, 0, 0] == pytest.approx(float(expected), rel=1e-3)


def test_nothing_to_do_is_refused(pipe):
    with pytest.raises(ValueError, match="needs candidates, prompts and noise levels"):
        calibrate(pipe, [], ["a star"], [0.5])
