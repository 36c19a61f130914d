"""JoyImage-Edit (`JoyImageEditTransformer3DModel`): images of one size as frames, then text."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from ajour.grid import TokenGrid
from ajour.processors.base import Family
from ajour.processors.weights import weight_of

if TYPE_CHECKING:
    import torch

    from ajour.processors.base import Call


class JoyImageEdit(Family):
    """JoyImage-Edit text-to-image and image editing."""

    classes: ClassVar[tuple[str, ...]] = ("JoyImageEditTransformer3DModel",)
    processors: ClassVar[tuple[str, ...]] = ("JoyImageAttnProcessor",)
    blocks: ClassVar[tuple[str, ...]] = ("double_blocks",)
    pipelines: ClassVar[tuple[str, ...]] = ("JoyImageEditPipeline",)
    sparse: ClassVar[str] = (
        "joint attention of images and text in every block; reference images are frames of the grid"
    )

    def head_dim(self, transformer: Any) -> int:
        """Channels of a head."""
        return int(self.layers(transformer)[0].head_dim)

    def output_weight(self, layer: Any, out: torch.Tensor) -> torch.Tensor | None:
        """Weight of the images' output projection."""
        return weight_of(layer.img_attn_proj, out)

    def grid(self, call: Call) -> TokenGrid:
        """(B, C, T, H, W), or (B, images, C, T, H, W), divided by the patch size; then text."""
        *images, _, frames, height, width = call["hidden_states"].shape[1:]
        extents = frames * prod(images), height, width
        frames, height, width = (
            n // p for n, p in zip(extents, call.config.patch_size, strict=True)
        )
        return TokenGrid(frames, height, width, after=call["encoder_hidden_states"].shape[1])
