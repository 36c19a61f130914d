"""Wan 2.1 and 2.2 (`WanTransformer3DModel`): video tokens only, RoPE before attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ajour.grid import TokenGrid
from ajour.processors.base import Family, SparseProcessor, argument
from ajour.processors.joint import Stream, inputs_of
from ajour.prologue import Rope

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


class WanSparseProcessor(SparseProcessor):
    """Self-attention of a Wan block through the layer's block table."""

    stands_in_for: ClassVar[tuple[str, ...]] = ("WanAttnProcessor",)

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Stock attention while the context has no table, else block-sparse attention.

        Args:
            attn: the `WanAttention` module.
            hidden_states: (batch, tokens, channels).
            encoder_hidden_states: None, as in all self-attention.
            attention_mask: None, as in all of Wan's self-attention.
            rotary_emb: cosines and sines, (1, tokens, 1, head_dim) each, every value twice.

        Returns:
            (batch, tokens, channels).
        """
        tables = self.context.tables
        if not tables or encoder_hidden_states is not None or attention_mask is not None:
            out: torch.Tensor = self.stock(
                attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb
            )
            return out
        if attn.fused_projections:
            query, key, value = attn.to_qkv(hidden_states).chunk(3, dim=-1)
        else:
            query, key, value = (
                project(hidden_states) for project in (attn.to_q, attn.to_k, attn.to_v)
            )
        rope = None
        if rotary_emb is not None:
            cosines, sines = rotary_emb
            rope = Rope(cosines[0, :, 0], sines[0, :, 0])
        stream = Stream(query, key, value, attn.norm_q, attn.norm_k)
        *parts, prologue = inputs_of([stream], rope)
        query, key, value = (part.unflatten(2, (attn.heads, -1)) for part in parts)
        hidden_states = attn.to_out[0](self.attend(query, key, value, prologue))
        hidden_states = attn.to_out[1](hidden_states)
        return hidden_states


class Wan(Family):
    """Wan text-to-video and image-to-video, one or two transformers."""

    classes: ClassVar[tuple[str, ...]] = ("WanTransformer3DModel",)
    processors: ClassVar[tuple[type[SparseProcessor], ...]] = (WanSparseProcessor,)
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

    def layers(self, transformer: torch.nn.Module) -> list[Any]:
        """`attn1` of every block; cross-attention (`attn2`) stays stock."""
        return [block.attn1 for block in transformer.blocks]  # type: ignore[union-attr]

    def grid(
        self, transformer: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> TokenGrid:
        """(B, C, T, H, W) divided by the patch size."""
        latents = argument(args, kwargs, 0, "hidden_states")
        patch = transformer.config.patch_size  # type: ignore[union-attr]
        extents = [n // p for n, p in zip(latents.shape[2:], patch, strict=True)]  # type: ignore[arg-type]
        return TokenGrid(*extents)
