"""Qwen-Image (`QwenImageTransformer2DModel`): text, then image, and for editing more images."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import torch

from ajour.processors.base import Family, Obstacle
from ajour.processors.fused import Fusion
from ajour.processors.host import prefix_lengths
from ajour.processors.raster import raster_of_shapes

if TYPE_CHECKING:
    from ajour.grid import TokenGrid
    from ajour.processors.base import Call


def as_real(rotation: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Complex rotations of images and of text, (tokens, head_dim / 2), as one real table."""
    image, text = rotation
    table = torch.view_as_real(torch.cat((text, image))).flatten(1)
    return table, table


class QwenImage(Family):
    """Qwen-Image text-to-image, image-to-image, ControlNet, layers and editing."""

    classes: ClassVar[tuple[str, ...]] = ("QwenImageTransformer2DModel",)
    processors: ClassVar[tuple[str, ...]] = ("QwenDoubleStreamAttnProcessor2_0",)
    fusion: ClassVar[Fusion] = Fusion(text_first=True, tables=as_real)
    pipelines: ClassVar[tuple[str, ...]] = (
        "QwenImageControlNetInpaintPipeline",
        "QwenImageControlNetPipeline",
        "QwenImageEditInpaintPipeline",
        "QwenImageEditPipeline",
        "QwenImageEditPlusPipeline",
        "QwenImageImg2ImgPipeline",
        "QwenImageInpaintPipeline",
        "QwenImageLayeredPipeline",
        "QwenImagePipeline",
    )
    sparse: ClassVar[str] = (
        "joint attention of image and text; text padding is left out, images of another size than "
        "the largest group are exact"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "calls whose mask hides text in front of text that it keeps: only padding at the end is "
        "left out exactly",
        "calls where less than half the image tokens are of one size: too little could be left out",
    )

    def grid(self, call: Call) -> TokenGrid:
        """From `img_shapes`: images of one size are the frames, others are exact."""
        mask = call["encoder_hidden_states_mask"]
        if mask is not None and prefix_lengths(mask) is None:
            raise Obstacle("encoder_hidden_states_mask hides text in front of text that it keeps")
        shapes = call["img_shapes"]  # the model takes all samples to be like the first
        first = shapes[0] if isinstance(shapes, list) else shapes
        raster = raster_of_shapes(first if isinstance(first, list) else [first])
        if raster is None:
            raise Obstacle("less than half the image tokens are of one size, going by img_shapes")
        return replace(raster, before=raster.before + call["encoder_hidden_states"].shape[1])

    def padding(self, call: Call) -> tuple[int, ...]:
        """From the text mask."""
        mask = call["encoder_hidden_states_mask"]
        lengths = () if mask is None else prefix_lengths(mask) or ()
        return tuple(mask.shape[1] - length for length in lengths)

    def padding_end(self, call: Call, whole: TokenGrid) -> int:
        """Where text ends, in front of all images."""
        return int(call["encoder_hidden_states"].shape[1])
