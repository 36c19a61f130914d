"""HunyuanVideo-1.5 (`HunyuanVideo15Transformer3DModel`): video, then image, glyphs and text.

The model puts the tokens that its three masks keep in front of all padding. Padding is left out,
same as for HunyuanVideo; the stock processor hides it with a mask of tokens by tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ajour.processors.host import read_once, valid_lengths
from ajour.processors.hunyuan_video import HunyuanVideo
from ajour.processors.processor import SparseProcessor
from ajour.processors.projections import project

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ajour.processors.base import Call


class HunyuanVideo15Processor(SparseProcessor):
    """Joint attention of video and text."""

    def run(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Projections, attention, output projections; arguments and result are stock's.

        The tables know what `attention_mask` (batch, text tokens) hides. `image_rotary_emb` holds
        cosines and sines, (video tokens, head_dim) each, every value twice.
        """
        arguments = {
            "hidden_states": hidden_states,
            "encoder_hidden_states": encoder_hidden_states,
            "image_rotary_emb": image_rotary_emb,
        }
        attn, prologue = HunyuanVideo15.fusion.take(attn, arguments)
        streams = project(attn, hidden_states), project(attn, encoder_hidden_states, added=True)
        query, key, value = (torch.cat(pair, dim=1) for pair in zip(*streams, strict=True))
        del streams
        video = hidden_states.shape[1]
        mixed = self.attend(query, key, value, prologue).flatten(2)
        hidden_states = attn.to_out[0](mixed[:, :video])
        hidden_states = attn.to_out[1](hidden_states)
        return hidden_states, attn.to_add_out(mixed[:, video:])


class HunyuanVideo15(HunyuanVideo):
    """HunyuanVideo-1.5 text-to-video and image-to-video."""

    classes: ClassVar[tuple[str, ...]] = ("HunyuanVideo15Transformer3DModel",)
    processors: ClassVar[tuple[str, ...]] = ()
    rewritten: ClassVar[Mapping[str, type[SparseProcessor]]] = {
        "HunyuanVideo15AttnProcessor2_0": HunyuanVideo15Processor
    }
    blocks: ClassVar[tuple[str, ...]] = ("transformer_blocks",)
    pipelines: ClassVar[tuple[str, ...]] = (
        "HunyuanVideo15ImageToVideoPipeline",
        "HunyuanVideo15Pipeline",
    )
    sparse: ClassVar[str] = "joint attention of video and text; all padding is left out"

    def text_tokens(self, call: Call) -> int:
        """Image, glyph and text tokens."""
        names = ("encoder_hidden_states", "encoder_hidden_states_2", "image_embeds")
        return sum(call[name].shape[1] for name in names)

    def padding(self, call: Call) -> tuple[int, ...]:
        """From both masks; image tokens count unless they are all 0, as without an image."""
        image = call["image_embeds"]
        shown = image.shape[1] if any_nonzero(image) else 0
        texts = valid_lengths(call["encoder_attention_mask"])
        glyphs = valid_lengths(call["encoder_attention_mask_2"])
        tokens = self.text_tokens(call)
        return tuple(tokens - shown - sum(pair) for pair in zip(texts, glyphs, strict=True))


@read_once
def any_nonzero(x: torch.Tensor) -> bool:
    """Whether a tensor has a value other than 0."""
    return bool((x != 0).any())
