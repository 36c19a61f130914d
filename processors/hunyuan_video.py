"""HunyuanVideo (`HunyuanVideoTransformer3DModel`): video, then text; two kinds of block.

Padding at the end of the text is hidden by a mask. Its rows never reach the video: they are keys
of no layer, and everything else that a block does to them it does token by token. So they are
left out of attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ajour.grid import TokenGrid
from ajour.processors.base import Family, SparseProcessor, argument, pad_tokens
from ajour.processors.host import valid_lengths
from ajour.processors.joint import inputs_of, joint_inputs, rope_of, stream_of

if TYPE_CHECKING:
    from collections.abc import Mapping


class HunyuanVideoSparseProcessor(SparseProcessor):
    """Joint attention of video and text through the layer's block table."""

    stands_in_for: ClassVar[tuple[str, ...]] = ("HunyuanVideoAttnProcessor2_0",)

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
            attn: the `Attention` module; those of single-stream blocks have no added projections.
            hidden_states: (batch, video tokens, channels).
            encoder_hidden_states: (batch, text tokens, channels).
            attention_mask: (batch, 1, 1, tokens), False for text padding; the tables know it.
            image_rotary_emb: cosines and sines, (video tokens, head_dim) each, every value twice.

        Returns:
            Video and text, shaped like the inputs.
        """
        if not self.context.tables:
            out: tuple[torch.Tensor, torch.Tensor] = self.stock(
                attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
            )
            return out
        rope = rope_of(image_rotary_emb, hidden_states.device)
        if attn.add_q_proj is None:
            both = torch.cat((hidden_states, encoder_hidden_states), dim=1)
            inputs = inputs_of([stream_of(attn, both)], rope)
        else:
            inputs = joint_inputs(
                attn, hidden_states, encoder_hidden_states, rope, text_first=False
            )
        video, text_tokens = hidden_states.shape[1], encoder_hidden_states.shape[1]
        mixed = self.attend(*inputs)
        hidden_states = mixed[:, :video]
        encoder_hidden_states = pad_tokens(mixed[:, video:], text_tokens)
        if attn.to_out is not None:
            hidden_states = attn.to_out[0](hidden_states)
            hidden_states = attn.to_out[1](hidden_states)
        if attn.to_add_out is not None:
            encoder_hidden_states = attn.to_add_out(encoder_hidden_states)
        return hidden_states, encoder_hidden_states


class HunyuanVideo(Family):
    """HunyuanVideo text-to-video and image-to-video."""

    classes: ClassVar[tuple[str, ...]] = ("HunyuanVideoTransformer3DModel",)
    processors: ClassVar[tuple[type[SparseProcessor], ...]] = (HunyuanVideoSparseProcessor,)
    pipelines: ClassVar[tuple[str, ...]] = (
        "HunyuanSkyreelsImageToVideoPipeline",
        "HunyuanVideoImageToVideoPipeline",
        "HunyuanVideoPipeline",
    )
    sparse: ClassVar[str] = (
        "joint attention of video and text in dual-stream and single-stream blocks; text padding "
        "is left out"
    )
    dense: ClassVar[tuple[str, ...]] = ("the text refiner: its sequences are short",)

    def layers(self, transformer: torch.nn.Module) -> list[Any]:
        """Dual-stream blocks, then single-stream blocks; the text refiner stays stock."""
        blocks = (*transformer.transformer_blocks, *transformer.single_transformer_blocks)  # type: ignore[misc]
        return [block.attn for block in blocks]

    def grid(
        self, transformer: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> TokenGrid:
        """(B, C, T, H, W) divided by the patch sizes, then all text tokens."""
        frames, height, width = argument(args, kwargs, 0, "hidden_states").shape[2:]
        config: Any = transformer.config
        return TokenGrid(
            frames // config.patch_size_t,
            height // config.patch_size,
            width // config.patch_size,
            after=argument(args, kwargs, 2, "encoder_hidden_states").shape[1],
        )

    def text_lengths(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, ...]:
        """From the text mask."""
        return valid_lengths(argument(args, kwargs, 3, "encoder_attention_mask"))
