"""Cosmos 3 (`Cosmos3OmniTransformer`): text with keys alone, then video, sound and actions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from ajour.processors.base import Family, Obstacle
from ajour.processors.raster import raster_of_shapes
from ajour.processors.weights import weight_of

if TYPE_CHECKING:
    import torch

    from ajour.grid import TokenGrid
    from ajour.processors.base import Call


class Cosmos3(Family):
    """Cosmos 3 text-to-video and image-to-video, with sound and actions."""

    classes: ClassVar[tuple[str, ...]] = ("Cosmos3OmniTransformer",)
    processors: ClassVar[tuple[str, ...]] = ("Cosmos3AttnProcessor",)
    blocks: ClassVar[tuple[str, ...]] = ("layers",)
    attention: ClassVar[str] = "self_attn"
    timestep: ClassVar[str] = "vision_timesteps"
    pipelines: ClassVar[tuple[str, ...]] = ("Cosmos3OmniPipeline",)
    sparse: ClassVar[str] = (
        "attention of the video to text and itself in every block; sound and actions are exact"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "the text's attention: it is causal, and its sequences are short",
        "calls where less than half the video tokens are of one size: too little could be left out",
    )

    def heads(self, transformer: Any) -> int:
        """Heads of a layer: those of queries; several share a head of keys."""
        return int(transformer.config.num_attention_heads)

    def head_dim(self, transformer: Any) -> int:
        """Channels of a head."""
        return int(transformer.config.head_dim)

    def output_weight(self, layer: Any, out: torch.Tensor) -> torch.Tensor | None:
        """Weight of the video's output projection."""
        return weight_of(layer.to_add_out, out)

    def keys_alone(self, call: Call, whole: TokenGrid) -> tuple[int, int]:
        """All text."""
        return int(call["und_len"]), 0

    def grid(self, call: Call) -> TokenGrid:
        """All text, then videos from `vision_token_shapes`, then sound and actions."""
        raster = raster_of_shapes(call["vision_token_shapes"])
        if raster is None:
            raise Obstacle("less than half the video tokens are of one size")
        grid = replace(raster, before=raster.before + int(call["und_len"]))
        return replace(grid, after=grid.after + int(call["sequence_length"]) - grid.seq_len)
