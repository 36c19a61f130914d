"""Kandinsky 5 (`Kandinsky5Transformer3DModel`): video tokens only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ajour.grid import TokenGrid
from ajour.processors.base import Family, Obstacle
from ajour.processors.weights import weight_of

if TYPE_CHECKING:
    import torch

    from ajour.processors.base import Call


class Kandinsky5(Family):
    """Kandinsky 5 text-to-video, image-to-video, text-to-image and image-to-image."""

    classes: ClassVar[tuple[str, ...]] = ("Kandinsky5Transformer3DModel",)
    processors: ClassVar[tuple[str, ...]] = ("Kandinsky5AttnProcessor",)
    blocks: ClassVar[tuple[str, ...]] = ("visual_transformer_blocks",)
    attention: ClassVar[str] = "self_attention"
    pipelines: ClassVar[tuple[str, ...]] = (
        "Kandinsky5I2IPipeline",
        "Kandinsky5I2VPipeline",
        "Kandinsky5T2IPipeline",
        "Kandinsky5T2VPipeline",
    )
    sparse: ClassVar[str] = "self-attention of every visual block"
    dense: ClassVar[tuple[str, ...]] = (
        "cross-attention to text and the text blocks: their sequences are short",
        "models set up for NABLA (`attention_type`): their own sparse attention runs instead",
    )

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
        if call["sparse_params"] is not None:
            raise Obstacle("the model is set up for NABLA, its own sparse attention")
        extents = call["hidden_states"].shape[1:4]
        return TokenGrid(*(n // p for n, p in zip(extents, call.config.patch_size, strict=True)))
