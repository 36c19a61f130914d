"""CogVideoX and CogVideoX 1.5 (`CogVideoXTransformer3DModel`): text, then video."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ajour.grid import TokenGrid
from ajour.processors.base import Family, Obstacle
from ajour.processors.processor import SparseProcessor
from ajour.processors.projections import project
from ajour.prologue import Prologue, Rope

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ajour.processors.base import Call

FUSED = "FusedCogVideoXAttnProcessor2_0"
"""The stock processor of models whose projections were fused."""


class CogVideoXProcessor(SparseProcessor):
    """Joint attention of text and video; stock calls PyTorch's attention, not the dispatch."""

    def run(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Projections, attention, output projection; arguments and result are stock's.

        `attention_mask` is None here. The projections serve text and video. `image_rotary_emb`
        holds cosines and sines, (video tokens, head_dim) each, every value twice; it is None for
        models with position embeddings.
        """
        text = encoder_hidden_states.shape[1]
        both = torch.cat((encoder_hidden_states, hidden_states), dim=1)
        query, key, value = project(attn, both, fused=type(self.stock).__name__ == FUSED)
        rope = None if image_rotary_emb is None else Rope(*image_rotary_emb, start=text)
        both = attn.to_out[0](self.attend(query, key, value, Prologue(rope=rope)).flatten(2))
        both = attn.to_out[1](both)
        return both[:, text:], both[:, :text]


class CogVideoX(Family):
    """CogVideoX text-to-video, image-to-video, video-to-video and control."""

    classes: ClassVar[tuple[str, ...]] = ("CogVideoXTransformer3DModel",)
    rewritten: ClassVar[Mapping[str, type[SparseProcessor]]] = {
        "CogVideoXAttnProcessor2_0": CogVideoXProcessor,
        FUSED: CogVideoXProcessor,
    }
    attention: ClassVar[str] = "attn1"
    pipelines: ClassVar[tuple[str, ...]] = (
        "CogVideoXFunControlPipeline",
        "CogVideoXImageToVideoPipeline",
        "CogVideoXPipeline",
        "CogVideoXVideoToVideoPipeline",
    )
    sparse: ClassVar[str] = "joint attention of text and video in every block"
    dense: ClassVar[tuple[str, ...]] = (
        "calls with an `attention_mask`: a block table knows nothing of it",
    )

    def grid(self, call: Call) -> TokenGrid:
        """All text tokens, then (B, T, C, H, W) divided by the patch sizes."""
        if (call["attention_kwargs"] or {}).get("attention_mask") is not None:
            raise Obstacle("attention_kwargs holds an attention_mask")
        _, frames, _, height, width = call["hidden_states"].shape
        config = call.config
        return TokenGrid(
            frames // (getattr(config, "patch_size_t", None) or 1),
            height // config.patch_size,
            width // config.patch_size,
            before=call["encoder_hidden_states"].shape[1],
        )
