"""MiniMax-H3 (`MiniMaxH3Transformer3DModel`): one packed sequence, the target video last."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ajour.processors.base import Family, Obstacle
from ajour.processors.host import read_once
from ajour.processors.raster import raster_of

if TYPE_CHECKING:
    from ajour.grid import TokenGrid
    from ajour.processors.base import Call


class MiniMaxH3(Family):
    """MiniMax-H3 video with sound, from text and references."""

    classes: ClassVar[tuple[str, ...]] = ("MiniMaxH3Transformer3DModel",)
    processors: ClassVar[tuple[str, ...]] = ("MiniMaxH3AttnProcessor",)
    pipelines: ClassVar[tuple[str, ...]] = ("MiniMaxH3ModularPipeline",)
    sparse: ClassVar[str] = (
        "self-attention of every block; text, conditions and audio of the packed sequence are exact"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "the text refiner: its sequences are short",
        "calls where less than half the tokens are the target video: too little could be left out",
    )

    def grid(self, call: Call) -> TokenGrid:
        """The last tokens of `position_ids` that are one raster; all tokens before it are exact."""
        raster = packed_raster(call["position_ids"])
        if raster is None or raster.after:
            raise Obstacle("less than half the tokens are the target video, going by position_ids")
        return raster


packed_raster = read_once(raster_of)
"""The raster of most of the tokens, which is the target video if no token comes after it."""
