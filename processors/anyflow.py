"""AnyFlow (`AnyFlowTransformer3DModel`): Wan, distilled to any number of steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ajour.grid import TokenGrid
from ajour.processors.base import Family
from ajour.processors.wan import Wan

if TYPE_CHECKING:
    from ajour.processors.base import Call


class AnyFlow(Family):
    """AnyFlow text-to-video, image-to-video and video continuation, bidirectional."""

    classes: ClassVar[tuple[str, ...]] = ("AnyFlowTransformer3DModel",)
    processors: ClassVar[tuple[str, ...]] = ("AnyFlowAttnProcessor",)
    blocks: ClassVar[tuple[str, ...]] = Wan.blocks
    attention: ClassVar[str] = Wan.attention
    pipelines: ClassVar[tuple[str, ...]] = ("AnyFlowPipeline",)
    sparse: ClassVar[str] = "self-attention (`attn1`) of every block"
    dense: ClassVar[tuple[str, ...]] = Wan.dense

    def grid(self, call: Call) -> TokenGrid:
        """(B, T, C, H, W) divided by the patch size."""
        _, frames, _, height, width = call["hidden_states"].shape
        _, patch_height, patch_width = call.config.patch_size
        return TokenGrid(frames, height // patch_height, width // patch_width)
