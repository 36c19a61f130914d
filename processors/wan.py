"""Wan 2.1 and 2.2 (`WanTransformer3DModel`): video tokens only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ajour.grid import TokenGrid
from ajour.processors.base import Family
from ajour.processors.processor import SparseProcessor
from ajour.prologue import Norm, Prologue, Rope

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from ajour.processors.base import Call


class WanProcessor(SparseProcessor):
    """Self-attention of a Wan block, its norms and rotation fused with the packing of tokens."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> Any:
        """Stock attention, or block-sparse attention while the layer has a table.

        Args:
            attn: the `WanAttention` module.
            hidden_states: (batch, tokens, channels).
            encoder_hidden_states: None in self-attention.
            attention_mask: None in self-attention.
            rotary_emb: cosines and sines, (1, tokens, 1, head_dim) each, every value twice.

        Returns:
            (batch, tokens, channels).
        """
        return super().__call__(
            attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb
        )

    def run(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> torch.Tensor:
        """Projections, fused norms and rotation, attention, output projection."""
        if attn.fused_projections:
            query, key, value = attn.to_qkv(hidden_states).chunk(3, dim=-1)
        else:
            query, key, value = (
                project(hidden_states) for project in (attn.to_q, attn.to_k, attn.to_v)
            )
        norms = attn.norm_q, attn.norm_k
        if any(norm.weight.device != query.device for norm in norms):
            # Offloaded weights come back only while their own module runs.
            query, key = attn.norm_q(query), attn.norm_k(key)
            q_norm = k_norm = None
        else:
            q_norm, k_norm = (Norm(norm.weight, norm.eps) for norm in norms)
        query, key, value = (x.unflatten(2, (attn.heads, -1)) for x in (query, key, value))
        rope = None
        if rotary_emb is not None:
            cosines, sines = rotary_emb
            rope = Rope(cosines[0, :, 0], sines[0, :, 0])
        rows = self.attend(query, key, value, Prologue(q_norm, k_norm, rope)).flatten(2)
        rows = attn.to_out[0](rows)
        rows = attn.to_out[1](rows)
        return rows


class Wan(Family):
    """Wan text-to-video and image-to-video, with one transformer or two."""

    classes: ClassVar[tuple[str, ...]] = ("WanTransformer3DModel",)
    fused: ClassVar[Mapping[str, type[SparseProcessor]]] = {"WanAttnProcessor": WanProcessor}
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

    def layers(self, transformer: Any) -> list[Any]:
        """`attn1` of every block; cross-attention (`attn2`) stays stock."""
        return [block.attn1 for block in transformer.blocks]

    def grid(self, call: Call) -> TokenGrid:
        """(B, C, T, H, W) divided by the patch size."""
        extents = call["hidden_states"].shape[2:]
        return TokenGrid(*(n // p for n, p in zip(extents, call.config.patch_size, strict=True)))
