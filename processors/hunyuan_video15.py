"""HunyuanVideo-1.5 (`HunyuanVideo15Transformer3DModel`): video, then image, glyphs and text.

The model puts what its three masks keep in front of all padding. Padding is left out, as for
HunyuanVideo; the stock processor hides it with a mask of tokens by tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ajour.grid import TokenGrid
from ajour.processors.base import Family, SparseProcessor, argument, pad_tokens
from ajour.processors.host import read_once, valid_lengths
from ajour.processors.joint import joint_inputs, rope_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


class HunyuanVideo15SparseProcessor(SparseProcessor):
    """Joint attention of video and text through the layer's block tables."""

    stands_in_for: ClassVar[tuple[str, ...]] = ("HunyuanVideo15AttnProcessor2_0",)

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
            attn: the `Attention` module.
            hidden_states: (batch, video tokens, channels).
            encoder_hidden_states: (batch, text tokens, channels), padding last.
            attention_mask: (batch, text tokens), False for padding; the tables know it.
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
        mixed = self.attend(
            *joint_inputs(attn, hidden_states, encoder_hidden_states, rope, text_first=False)
        )
        video = hidden_states.shape[1]
        hidden_states = attn.to_out[0](mixed[:, :video])
        hidden_states = attn.to_out[1](hidden_states)
        text_rows = pad_tokens(mixed[:, video:], encoder_hidden_states.shape[1])
        return hidden_states, attn.to_add_out(text_rows)


class HunyuanVideo15(Family):
    """HunyuanVideo-1.5 text-to-video and image-to-video."""

    classes: ClassVar[tuple[str, ...]] = ("HunyuanVideo15Transformer3DModel",)
    processors: ClassVar[tuple[type[SparseProcessor], ...]] = (HunyuanVideo15SparseProcessor,)
    pipelines: ClassVar[tuple[str, ...]] = (
        "HunyuanVideo15ImageToVideoPipeline",
        "HunyuanVideo15Pipeline",
    )
    sparse: ClassVar[str] = "joint attention of video and text; all padding is left out"
    dense: ClassVar[tuple[str, ...]] = ("the text refiner: its sequences are short",)

    def layers(self, transformer: torch.nn.Module) -> list[Any]:
        """`attn` of every block; the text refiner stays stock."""
        return [block.attn for block in transformer.transformer_blocks]  # type: ignore[union-attr]

    def grid(
        self, transformer: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> TokenGrid:
        """(B, C, T, H, W) divided by the patch sizes, then image, glyph and text tokens."""
        frames, height, width = argument(args, kwargs, 0, "hidden_states").shape[2:]
        config: Any = transformer.config
        names = {2: "encoder_hidden_states", 5: "encoder_hidden_states_2", 7: "image_embeds"}
        return TokenGrid(
            frames // config.patch_size_t,
            height // config.patch_size,
            width // config.patch_size,
            after=sum(argument(args, kwargs, i, name).shape[1] for i, name in names.items()),
        )

    def text_lengths(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, ...]:
        """From both masks; image tokens count unless they are all 0, as without an image."""
        image = argument(args, kwargs, 7, "image_embeds")
        shown = image.shape[1] if any_nonzero(image) else 0
        texts = valid_lengths(argument(args, kwargs, 3, "encoder_attention_mask"))
        glyphs = valid_lengths(argument(args, kwargs, 6, "encoder_attention_mask_2"))
        return tuple(shown + sum(pair) for pair in zip(texts, glyphs, strict=True))


@read_once
def any_nonzero(x: torch.Tensor) -> bool:
    """Whether a tensor has a value other than 0."""
    return bool((x != 0).any())
