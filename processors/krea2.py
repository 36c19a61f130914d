"""Krea 2 (`Krea2Transformer2DModel`): text, then image; padding lies within the text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ajour.processors.base import Family, Obstacle
from ajour.processors.host import hidden_runs, read_once
from ajour.processors.raster import raster_of

if TYPE_CHECKING:
    from ajour.grid import TokenGrid
    from ajour.processors.base import Call


class Krea2(Family):
    """Krea 2 text-to-image."""

    classes: ClassVar[tuple[str, ...]] = ("Krea2Transformer2DModel",)
    processors: ClassVar[tuple[str, ...]] = ("Krea2AttnProcessor",)
    pipelines: ClassVar[tuple[str, ...]] = ("Krea2Pipeline",)
    sparse: ClassVar[str] = (
        "joint attention of text and image in every block, each key head as often as queries need "
        "it; text padding is left out"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "the blocks that fuse and refine text: their sequences are short",
        "calls whose mask hides other tokens than one stretch of text: only that is left out "
        "exactly",
        "calls where less than half the tokens are one image: too little could be left out",
    )

    def heads(self, transformer: Any) -> int:
        """Heads of a layer."""
        return int(self.layers(transformer)[0].num_heads)

    def head_dim(self, transformer: Any) -> int:
        """Channels of a head."""
        return int(self.layers(transformer)[0].head_dim)

    def grid(self, call: Call) -> TokenGrid:
        """From `position_ids`; all tokens around the image are exact."""
        mask, raster = call["encoder_attention_mask"], packed_raster(call["position_ids"])
        if raster is None:
            raise Obstacle("less than half the tokens are one image, going by position_ids")
        runs = () if mask is None else hidden_runs(mask)
        if runs is None or len({end for _, end in runs if end}) > 1:
            raise Obstacle("encoder_attention_mask hides other tokens than one stretch of text")
        return raster

    def padding(self, call: Call) -> tuple[int, ...]:
        """From the text mask."""
        mask = call["encoder_attention_mask"]
        runs = () if mask is None else hidden_runs(mask) or ()
        return tuple(end - start for start, end in runs)

    def padding_end(self, call: Call, whole: TokenGrid) -> int:
        """Where the hidden stretch ends, or else the text."""
        mask = call["encoder_attention_mask"]
        runs = () if mask is None else hidden_runs(mask) or ()
        ends = (end for _, end in runs if end)
        return int(max(ends, default=call["encoder_hidden_states"].shape[1]))


packed_raster = read_once(raster_of)
"""The raster of most of the tokens, which is the image."""
