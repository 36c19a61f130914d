"""Pictures in whatever form a run returns them."""

import numpy as np
import pytest
import torch
from diffusers.pipelines.flux.pipeline_output import FluxPipelineOutput
from diffusers.pipelines.wan.pipeline_output import WanPipelineOutput
from PIL import Image

from ajour.pipelines.pictures import pictures

VIDEO = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 3)).astype(np.uint8)
UNIT = VIDEO.astype(np.float32) / 255
TENSOR = torch.from_numpy(UNIT).movedim(-1, -3)
FRAMES = [Image.fromarray(frame) for frame in VIDEO]


@pytest.mark.parametrize(
    "output",
    [
        WanPipelineOutput(frames=UNIT[None]),
        WanPipelineOutput(frames=TENSOR[None]),
        WanPipelineOutput(frames=[FRAMES]),
        (UNIT[None], "sound"),
        VIDEO,
        UNIT[None],
        TENSOR,
        TENSOR[None].bfloat16(),
        torch.from_numpy(VIDEO).movedim(-1, -3),
        FRAMES,
        [FRAMES],
        list(UNIT),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_video_of_any_form(output):
    made = pictures(output)
    assert made.dtype == np.float32
    assert np.allclose(made, UNIT, atol=4e-3)


@pytest.mark.parametrize(
    "output",
    [
        FluxPipelineOutput(images=UNIT),
        FluxPipelineOutput(images=FRAMES),
        FRAMES[0],
        VIDEO[0],
        TENSOR[0],
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_image_is_a_video_of_one_frame_and_only_the_first_counts(output):
    assert np.allclose(pictures(output), UNIT[:1], atol=1e-6)


@pytest.mark.parametrize(
    "output",
    [None, [], "video.mp4", 3, {}, torch.zeros(1, 16, 2, 8, 8), np.zeros((4, 3, 5, 4)), ([],)],
    ids=lambda value: f"{value!r:.20}",
)
def test_anything_else_is_refused(output):
    with pytest.raises(TypeError, match="a run must return pictures: an array"):
        pictures(output)
