"""Mochi 1 (`MochiTransformer3DModel`): video, then text; each head has its own rotation.

The stock processor runs sample by sample without the text that the mask hides. Here that text lies
past the end of a sample's grid, which is the same for padding at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ajour.grid import TokenGrid
from ajour.processors.base import Family, Obstacle
from ajour.processors.host import prefix_lengths
from ajour.processors.processor import SparseProcessor
from ajour.processors.projections import project, rotate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ajour.processors.base import Call


class MochiProcessor(SparseProcessor):
    """Joint attention of video and text; stock calls PyTorch's attention, not the dispatch."""

    def run(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Projections, attention, output projections; arguments and result are stock's.

        The tables know what `attention_mask` (batch, text tokens) hides. `image_rotary_emb` holds
        cosines and sines, (video tokens, heads, head_dim / 2) each. The last block has no text
        output.
        """
        query, key, value = project(attn, hidden_states)
        if image_rotary_emb is not None:
            query, key = rotate(query, *image_rotary_emb), rotate(key, *image_rotary_emb)
        text = project(attn, encoder_hidden_states, added=True)
        query, key, value = (
            torch.cat(pair, dim=1) for pair in zip((query, key, value), text, strict=True)
        )
        video = hidden_states.shape[1]
        mixed = self.attend(query, key, value).flatten(2)
        encoder_hidden_states = mixed[:, video:]
        hidden_states = attn.to_out[0](mixed[:, :video])
        hidden_states = attn.to_out[1](hidden_states)
        if not attn.context_pre_only:
            encoder_hidden_states = attn.to_add_out(encoder_hidden_states)
        return hidden_states, encoder_hidden_states


class Mochi(Family):
    """Mochi text-to-video."""

    classes: ClassVar[tuple[str, ...]] = ("MochiTransformer3DModel",)
    rewritten: ClassVar[Mapping[str, type[SparseProcessor]]] = {
        "MochiAttnProcessor2_0": MochiProcessor
    }
    attention: ClassVar[str] = "attn1"
    pipelines: ClassVar[tuple[str, ...]] = ("MochiPipeline",)
    sparse: ClassVar[str] = (
        "joint attention of video and text in every block; text padding is left out"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "calls whose mask hides text in front of text that it keeps: only padding at the end is "
        "left out exactly",
    )

    def grid(self, call: Call) -> TokenGrid:
        """(B, C, T, H, W), height and width divided by the patch size, then all text tokens."""
        mask = call["encoder_attention_mask"]
        if prefix_lengths(mask) is None:
            raise Obstacle("encoder_attention_mask hides text in front of text that it keeps")
        frames, height, width = call["hidden_states"].shape[2:]
        patch = call.config.patch_size
        return TokenGrid(frames, height // patch, width // patch, after=mask.shape[1])

    def padding(self, call: Call) -> tuple[int, ...]:
        """From the text mask."""
        mask = call["encoder_attention_mask"]
        return tuple(mask.shape[1] - length for length in prefix_lengths(mask) or ())
