"""Krea 2 (`Krea2Transformer2DModel`): text, then image; padding lies within the text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ajour.processors.base import Obstacle
from ajour.processors.host import read_once
from ajour.processors.masked import ONE_STRETCH, MaskedText
from ajour.processors.raster import raster_of

if TYPE_CHECKING:
    import torch

    from ajour.grid import TokenGrid
    from ajour.processors.base import Call


class Krea2(MaskedText):
    """Krea 2 text-to-image."""

    classes: ClassVar[tuple[str, ...]] = ("Krea2Transformer2DModel",)
    processors: ClassVar[tuple[str, ...]] = ("Krea2AttnProcessor",)
    pipelines: ClassVar[tuple[str, ...]] = ("Krea2Pipeline",)
    sparse: ClassVar[str] = (
        "joint attention of text and image in every block; text padding is left out"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "the blocks that fuse and refine text: their sequences are short",
        ONE_STRETCH,
        "calls where less than half the tokens are one image: too little could be left out",
    )

    def heads(self, transformer: Any) -> int:
        """Heads of a layer: those of queries; several share a head of keys."""
        return int(self.layers(transformer)[0].num_heads)

    def head_dim(self, transformer: Any) -> int:
        """Channels of a head."""
        return int(self.layers(transformer)[0].head_dim)

    def mask(self, call: Call) -> torch.Tensor | None:
        """Of the text."""
        mask: torch.Tensor | None = call["encoder_attention_mask"]
        return mask

    def grid(self, call: Call) -> TokenGrid:
        """From `position_ids`; all tokens around the image are exact."""
        self.hidden(call)
        raster = packed_raster(call["position_ids"])
        if raster is None:
            raise Obstacle("less than half the tokens are one image, going by position_ids")
        return raster


packed_raster = read_once(raster_of)
"""The raster of most of the tokens, which is the image."""
