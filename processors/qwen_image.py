"""Qwen-Image (`QwenImageTransformer2DModel`): image, then text, and for editing more images.

The stock processor puts the text first. Attention does not depend on the order of its tokens, so
here text comes last, where padding that a mask hides can be left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ajour.grid import TokenGrid
from ajour.processors.base import Family, Obstacle, SparseProcessor, argument, pad_tokens
from ajour.processors.host import prefix_lengths
from ajour.processors.joint import joint_inputs, rope_of
from ajour.processors.raster import Raster, raster_of_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping


class QwenImageSparseProcessor(SparseProcessor):
    """Joint attention of images and text through the layer's block tables."""

    stands_in_for: ClassVar[tuple[str, ...]] = ("QwenDoubleStreamAttnProcessor2_0",)

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_hidden_states_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stock attention while the context has no table, else block-sparse attention.

        Args:
            attn: the `Attention` module.
            hidden_states: (batch, image tokens, channels).
            encoder_hidden_states: (batch, text tokens, channels).
            encoder_hidden_states_mask: (batch, text tokens), False for padding; the tables know it.
            attention_mask: None: the stock processor refuses any.
            image_rotary_emb: rotations of image tokens and of text tokens as complex numbers,
                (tokens, head_dim / 2) each.

        Returns:
            Images and text, shaped like the inputs.
        """
        if not self.context.tables or attention_mask is not None:
            out: tuple[torch.Tensor, torch.Tensor] = self.stock(
                attn,
                hidden_states,
                encoder_hidden_states,
                encoder_hidden_states_mask,
                attention_mask,
                image_rotary_emb,
            )
            return out
        tables = None
        if image_rotary_emb is not None:
            turns = torch.view_as_real(torch.cat(image_rotary_emb)).flatten(1)
            tables = turns, turns
        rope = rope_of(tables, hidden_states.device)
        mixed = self.attend(
            *joint_inputs(attn, hidden_states, encoder_hidden_states, rope, text_first=False)
        )
        tokens = hidden_states.shape[1]
        hidden_states = attn.to_out[0](mixed[:, :tokens])
        hidden_states = attn.to_out[1](hidden_states)
        text_rows = pad_tokens(mixed[:, tokens:], encoder_hidden_states.shape[1])
        return hidden_states, attn.to_add_out(text_rows)


class QwenImage(Family):
    """Qwen-Image text-to-image, image-to-image, ControlNet, layers and editing."""

    classes: ClassVar[tuple[str, ...]] = ("QwenImageTransformer2DModel",)
    processors: ClassVar[tuple[type[SparseProcessor], ...]] = (QwenImageSparseProcessor,)
    pipelines: ClassVar[tuple[str, ...]] = (
        "QwenImageControlNetInpaintPipeline",
        "QwenImageControlNetPipeline",
        "QwenImageEditInpaintPipeline",
        "QwenImageEditPipeline",
        "QwenImageEditPlusPipeline",
        "QwenImageImg2ImgPipeline",
        "QwenImageInpaintPipeline",
        "QwenImageLayeredPipeline",
        "QwenImagePipeline",
    )
    sparse: ClassVar[str] = (
        "joint attention of image and text; text padding is left out, images of another size than "
        "the largest group are exact"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "calls whose mask hides text in front of text that it keeps: only padding at the end is "
        "left out exactly",
        "calls where less than half the image tokens are of one size: too little could be left out",
    )

    def layers(self, transformer: torch.nn.Module) -> list[Any]:
        """`attn` of every block."""
        return [block.attn for block in transformer.transformer_blocks]  # type: ignore[union-attr]

    def grid(
        self, transformer: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> TokenGrid:
        """From `img_shapes`: images of one size are the frames, others count as text."""
        mask = argument(args, kwargs, 2, "encoder_hidden_states_mask")
        if mask is not None and prefix_lengths(mask) is None:
            raise Obstacle("encoder_hidden_states_mask hides text in front of text that it keeps")
        raster = raster_of_call(args, kwargs)
        if raster is None:
            raise Obstacle("less than half the image tokens are of one size, going by img_shapes")
        text = argument(args, kwargs, 1, "encoder_hidden_states").shape[1]
        return TokenGrid(*raster.extents, before=raster.before, after=raster.after + text)

    def text_lengths(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, ...]:
        """From the text mask, and the images behind the grid."""
        mask = argument(args, kwargs, 2, "encoder_hidden_states_mask")
        raster = raster_of_call(args, kwargs)
        if mask is None or raster is None:
            return ()
        return tuple(raster.after + length for length in prefix_lengths(mask) or ())


def raster_of_call(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Raster | None:
    """The raster among the image tokens; the model takes all samples to be like the first."""
    shapes = argument(args, kwargs, 4, "img_shapes")
    first = shapes[0] if isinstance(shapes, list) else shapes
    return raster_of_shapes(first if isinstance(first, list) else [first])
