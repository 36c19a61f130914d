"""Wan 2.1 and 2.2 (`WanTransformer3DModel`): video tokens only, RoPE before attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ajour.grid import TokenGrid
from ajour.ops import attention
from ajour.processors.base import Family, SparseProcessor

if TYPE_CHECKING:
    from collections.abc import Mapping


class WanSparseProcessor(SparseProcessor):
    """Self-attention of a Wan block through the layer's block table."""

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
            rotary_emb: cosines and sines, (1, tokens, 1, head_dim) each.

        Returns:
            (batch, tokens, channels).
        """
        table = self.context.table
        if table is None or encoder_hidden_states is not None or attention_mask is not None:
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
        query = attn.norm_q(query).unflatten(2, (attn.heads, -1))
        key = attn.norm_k(key).unflatten(2, (attn.heads, -1))
        value = value.unflatten(2, (attn.heads, -1))
        if rotary_emb is not None:
            query, key = (rotate(x, *rotary_emb) for x in (query, key))
        mixed = attention(query, key, value, table, backend=self.context.backend)
        assert isinstance(mixed, torch.Tensor)
        hidden_states = attn.to_out[0](mixed.flatten(2, 3).type_as(query))
        hidden_states = attn.to_out[1](hidden_states)
        return hidden_states


def rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Wan's rotary embedding: rotate neighbouring pairs of channels.

    Args:
        x: (batch, tokens, heads, head_dim).
        cosines: (1, tokens, 1, head_dim), each value twice.
        sines: same shape.
    """
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = cosines[..., 0::2], sines[..., 1::2]
    pairs = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return pairs.flatten(-2).type_as(x)


class Wan(Family):
    """Wan text-to-video and image-to-video, one or two transformers."""

    classes: ClassVar[tuple[str, ...]] = ("WanTransformer3DModel",)
    processor: ClassVar[type[SparseProcessor]] = WanSparseProcessor

    def layers(self, transformer: torch.nn.Module) -> list[Any]:
        """`attn1` of every block; cross-attention (`attn2`) stays stock."""
        return [block.attn1 for block in transformer.blocks]  # type: ignore[union-attr]

    def head_dim(self, transformer: torch.nn.Module) -> int:
        """From the config."""
        return int(transformer.config.attention_head_dim)  # type: ignore[union-attr, arg-type]

    def grid(
        self, transformer: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> TokenGrid:
        """(B, C, T, H, W) divided by the patch size."""
        latents = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        patch = transformer.config.patch_size  # type: ignore[union-attr]
        extents = [n // p for n, p in zip(latents.shape[2:], patch, strict=True)]  # type: ignore[arg-type]
        return TokenGrid(*extents)

    def obstacle(self, layer: Any) -> str | None:
        """Context parallelism splits the sequence, which block tables do not follow yet."""
        if layer.processor._parallel_config is not None:
            return "context parallelism is enabled on the transformer"
        return None
