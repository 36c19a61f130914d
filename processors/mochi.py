"""Mochi 1 (`MochiTransformer3DModel`): video, then text; each head has its own RoPE.

The stock processor runs sample by sample without the text that the mask hides. Here the text that
it hides lies past the end of a sample's grid, which is the same for padding at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ajour.grid import TokenGrid
from ajour.processors.base import Family, Obstacle, SparseProcessor, argument, pad_tokens
from ajour.processors.host import prefix_lengths
from ajour.processors.projections import project, rotate

if TYPE_CHECKING:
    from collections.abc import Mapping


class MochiSparseProcessor(SparseProcessor):
    """Joint attention of video and text through the layer's block tables."""

    stands_in_for: ClassVar[tuple[str, ...]] = ("MochiAttnProcessor2_0",)

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stock attention while the context has no table, else block-sparse attention.

        Args:
            attn: the `MochiAttention` module; that of the last block has no text output.
            hidden_states: (batch, video tokens, channels).
            encoder_hidden_states: (batch, text tokens, text channels).
            attention_mask: (batch, text tokens), 0 for padding; the tables know it.
            image_rotary_emb: cosines and sines, (video tokens, heads, head_dim / 2) each.

        Returns:
            Video and text, shaped like the inputs.
        """
        if not self.context.tables:
            out: tuple[torch.Tensor, torch.Tensor] = self.stock(
                attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
            )
            return out
        query, key, value = project(attn, hidden_states)
        query, key = attn.norm_q(query), attn.norm_k(key)
        if image_rotary_emb is not None:
            query, key = rotate(query, *image_rotary_emb), rotate(key, *image_rotary_emb)
        text_query, text_key, text_value = project(attn, encoder_hidden_states, added=True)
        query = torch.cat((query, attn.norm_added_q(text_query)), dim=1)
        key = torch.cat((key, attn.norm_added_k(text_key)), dim=1)
        value = torch.cat((value, text_value), dim=1)
        video, text_tokens = hidden_states.shape[1], encoder_hidden_states.shape[1]
        mixed = self.attend(query, key, value)
        encoder_hidden_states = pad_tokens(mixed[:, video:], text_tokens)
        hidden_states = attn.to_out[0](mixed[:, :video])
        hidden_states = attn.to_out[1](hidden_states)
        if not attn.context_pre_only:
            encoder_hidden_states = attn.to_add_out(encoder_hidden_states)
        return hidden_states, encoder_hidden_states


class Mochi(Family):
    """Mochi text-to-video."""

    classes: ClassVar[tuple[str, ...]] = ("MochiTransformer3DModel",)
    processors: ClassVar[tuple[type[SparseProcessor], ...]] = (MochiSparseProcessor,)
    pipelines: ClassVar[tuple[str, ...]] = ("MochiPipeline",)
    sparse: ClassVar[str] = (
        "joint attention of video and text in every block; text padding is left out"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "calls whose mask hides text in front of text that it keeps: only padding at the end is "
        "left out exactly",
    )

    def layers(self, transformer: torch.nn.Module) -> list[Any]:
        """`attn1` of every block: video and text attend jointly."""
        return [block.attn1 for block in transformer.transformer_blocks]  # type: ignore[union-attr]

    def grid(
        self, transformer: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> TokenGrid:
        """(B, C, T, H, W), height and width divided by the patch size, then all text tokens."""
        mask = argument(args, kwargs, 3, "encoder_attention_mask")
        if prefix_lengths(mask) is None:
            raise Obstacle("encoder_attention_mask hides text in front of text that it keeps")
        frames, height, width = argument(args, kwargs, 0, "hidden_states").shape[2:]
        patch: Any = transformer.config.patch_size  # type: ignore[union-attr]
        return TokenGrid(frames, height // patch, width // patch, after=mask.shape[1])

    def text_lengths(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, ...]:
        """From the text mask."""
        return prefix_lengths(argument(args, kwargs, 3, "encoder_attention_mask")) or ()
