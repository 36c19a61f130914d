"""Kandinsky 6 (`Kandinsky6Transformer3DModel`): video, with audio in a stream of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ajour.grid import TokenGrid
from ajour.processors.base import Family
from ajour.processors.weights import weight_of

if TYPE_CHECKING:
    import torch

    from ajour.processors.base import Call


class Kandinsky6(Family):
    """Kandinsky 6 text-to-video and image-to-video, with sound."""

    classes: ClassVar[tuple[str, ...]] = ("Kandinsky6Transformer3DModel",)
    processors: ClassVar[tuple[str, ...]] = ("Kandinsky6AttnProcessor",)
    pipelines: ClassVar[tuple[str, ...]] = ("Kandinsky6TI2VAPipeline",)
    sparse: ClassVar[str] = (
        "the video's self-attention in every block; the reference frame is the grid's last"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "the audio's self-attention, and cross-attention to text and between video and audio: few "
        "tokens on one side",
        "the text blocks: their sequences are short",
    )

    def layers(self, transformer: Any) -> list[Any]:
        """The video's self-attention modules."""
        blocks = transformer.visual_transformer_blocks
        return [block.video_dec_block.self_attention for block in blocks]

    def heads(self, transformer: Any) -> int:
        """Heads of a layer."""
        return int(self.layers(transformer)[0].num_heads)

    def head_dim(self, transformer: Any) -> int:
        """Channels of a head: those of the three axes of the rotary embedding."""
        return int(sum(transformer.config.axes_dims))

    def output_weight(self, layer: Any, out: torch.Tensor) -> torch.Tensor | None:
        """Weight of `out_layer`."""
        return weight_of(layer.out_layer, out)

    def grid(self, call: Call) -> TokenGrid:
        """(B, T, H, W, C) divided by the patch size."""
        extents = call["hidden_states"].shape[1:4]
        return TokenGrid(*(n // p for n, p in zip(extents, call.config.patch_size, strict=True)))
