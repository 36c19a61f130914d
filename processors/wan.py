"""Wan 2.1 and 2.2 (`WanTransformer3DModel`): video tokens only."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ajour.grid import TokenGrid
from ajour.processors.base import Family
from ajour.processors.fused import Fusion

if TYPE_CHECKING:
    import torch

    from ajour.processors.base import Call


def of_tokens(rotation: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines (tokens, head_dim) of tables (1, tokens, 1, head_dim)."""
    cosines, sines = rotation
    return cosines[0, :, 0], sines[0, :, 0]


class Wan(Family):
    """Wan text-to-video and image-to-video, with one transformer or two."""

    classes: ClassVar[tuple[str, ...]] = ("WanTransformer3DModel",)
    processors: ClassVar[tuple[str, ...]] = ("WanAttnProcessor",)
    fusion: ClassVar[Fusion] = Fusion(argument="rotary_emb", tables=of_tokens)
    blocks: ClassVar[tuple[str, ...]] = ("blocks",)
    attention: ClassVar[str] = "attn1"
    pipelines: ClassVar[tuple[str, ...]] = (
        "LucyEditPipeline",
        "WanImageToVideoPipeline",
        "WanPipeline",
        "WanVideoToVideoPipeline",
    )
    sparse: ClassVar[str] = (
        "self-attention (`attn1`) of every block, of both transformers where there are two"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "cross-attention (`attn2`) to text and images: its keys are few",
    )

    def grid(self, call: Call) -> TokenGrid:
        """(B, C, T, H, W) divided by the patch size."""
        extents = call["hidden_states"].shape[2:]
        return TokenGrid(*(n // p for n, p in zip(extents, call.config.patch_size, strict=True)))
