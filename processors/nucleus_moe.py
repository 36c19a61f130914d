"""Nucleus-Image (`NucleusMoEImageTransformer2DModel`): image, which attends to itself and text."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from ajour.processors.base import Obstacle
from ajour.processors.masked import ONE_STRETCH, MaskedText
from ajour.processors.raster import raster_of_shapes

if TYPE_CHECKING:
    import torch

    from ajour.grid import TokenGrid
    from ajour.processors.base import Call


class NucleusMoEImage(MaskedText):
    """Nucleus-Image text-to-image."""

    classes: ClassVar[tuple[str, ...]] = ("NucleusMoEImageTransformer2DModel",)
    processors: ClassVar[tuple[str, ...]] = ("NucleusMoEAttnProcessor2_0",)
    pipelines: ClassVar[tuple[str, ...]] = ("NucleusMoEImagePipeline",)
    sparse: ClassVar[str] = (
        "attention of the image to itself and text in every block; text padding is left out"
    )
    dense: ClassVar[tuple[str, ...]] = (
        ONE_STRETCH,
        "calls where less than half the image tokens are of one size: too little could be left out",
    )

    def mask(self, call: Call) -> torch.Tensor | None:
        """Of the text."""
        mask: torch.Tensor | None = call["encoder_hidden_states_mask"]
        return mask

    def mask_start(self, call: Call) -> int:
        """Behind the image."""
        return int(call["hidden_states"].shape[1])

    def keys_alone(self, call: Call, whole: TokenGrid) -> tuple[int, int]:
        """All text."""
        return 0, int(call["encoder_hidden_states"].shape[1])

    def grid(self, call: Call) -> TokenGrid:
        """From `img_shapes`: images of one size are the frames; then all text."""
        self.hidden(call)
        shapes = call["img_shapes"]  # the model takes all samples to be like the first
        raster = raster_of_shapes(shapes[:1] if isinstance(shapes, list) else [shapes])
        if raster is None:
            raise Obstacle("less than half the image tokens are of one size, going by img_shapes")
        return replace(raster, after=raster.after + call["encoder_hidden_states"].shape[1])
