"""CogVideoX and CogVideoX 1.5 (`CogVideoXTransformer3DModel`): text, then video."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ajour.grid import TokenGrid
from ajour.processors.base import Family, Obstacle, SparseProcessor, argument
from ajour.processors.joint import inputs_of, rope_of, stream_of

if TYPE_CHECKING:
    from collections.abc import Mapping

FUSED = "FusedCogVideoXAttnProcessor2_0"
"""The stock processor of models whose projections were fused."""


class CogVideoXSparseProcessor(SparseProcessor):
    """Joint attention of text and video through the layer's block table."""

    stands_in_for: ClassVar[tuple[str, ...]] = ("CogVideoXAttnProcessor2_0", FUSED)

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stock attention while the context has no table, else block-sparse attention.

        Args:
            attn: the `Attention` module; its projections serve text and video alike.
            hidden_states: (batch, video tokens, channels).
            encoder_hidden_states: (batch, text tokens, channels).
            attention_mask: None wherever the context has a table.
            image_rotary_emb: cosines and sines, (video tokens, head_dim) each, every value twice;
                None for models with position embeddings.

        Returns:
            Video and text, shaped like the inputs.
        """
        if not self.context.tables:
            out: tuple[torch.Tensor, torch.Tensor] = self.stock(
                attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
            )
            return out
        text = encoder_hidden_states.shape[1]
        both = torch.cat((encoder_hidden_states, hidden_states), dim=1)
        stream = stream_of(attn, both, fused=type(self.stock).__name__ == FUSED)
        rope = rope_of(image_rotary_emb, both.device, start=text)
        both = attn.to_out[0](self.attend(*inputs_of([stream], rope)))
        both = attn.to_out[1](both)
        return both[:, text:], both[:, :text]


class CogVideoX(Family):
    """CogVideoX text-to-video, image-to-video, video-to-video and control."""

    classes: ClassVar[tuple[str, ...]] = ("CogVideoXTransformer3DModel",)
    processors: ClassVar[tuple[type[SparseProcessor], ...]] = (CogVideoXSparseProcessor,)
    pipelines: ClassVar[tuple[str, ...]] = (
        "CogVideoXFunControlPipeline",
        "CogVideoXImageToVideoPipeline",
        "CogVideoXPipeline",
        "CogVideoXVideoToVideoPipeline",
    )
    sparse: ClassVar[str] = "joint attention of text and video in every block"
    dense: ClassVar[tuple[str, ...]] = (
        "calls with an `attention_mask`: it hides tokens that a plan counts on",
    )

    def layers(self, transformer: torch.nn.Module) -> list[Any]:
        """`attn1` of every block: text and video attend jointly."""
        return [block.attn1 for block in transformer.transformer_blocks]  # type: ignore[union-attr]

    def grid(
        self, transformer: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> TokenGrid:
        """All text tokens, then (B, T, C, H, W) divided by the patch sizes."""
        options = argument(args, kwargs, 6, "attention_kwargs") or {}
        if options.get("attention_mask") is not None:
            raise Obstacle("attention_kwargs holds an attention_mask")
        _, frames, _, height, width = argument(args, kwargs, 0, "hidden_states").shape
        config: Any = transformer.config
        return TokenGrid(
            frames // (config.patch_size_t or 1),
            height // config.patch_size,
            width // config.patch_size,
            before=argument(args, kwargs, 1, "encoder_hidden_states").shape[1],
        )
