"""HunyuanImage 2.1 (`HunyuanImageTransformer2DModel`): image, then glyphs and text."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ajour.grid import TokenGrid
from ajour.processors.host import valid_lengths
from ajour.processors.hunyuan_video import HunyuanVideo

if TYPE_CHECKING:
    from ajour.processors.base import Call

SUFFIXES = ("", "_2")
"""Of the arguments that hold text and glyphs, and their masks."""


class HunyuanImage(HunyuanVideo):
    """HunyuanImage 2.1 text-to-image, and its refiner."""

    classes: ClassVar[tuple[str, ...]] = ("HunyuanImageTransformer2DModel",)
    processors: ClassVar[tuple[str, ...]] = ("HunyuanImageAttnProcessor",)
    pipelines: ClassVar[tuple[str, ...]] = ("HunyuanImagePipeline", "HunyuanImageRefinerPipeline")
    sparse: ClassVar[str] = (
        "joint attention of image, glyphs and text in dual-stream and single-stream blocks; text "
        "padding is left out"
    )

    def grid(self, call: Call) -> TokenGrid:
        """(B, C, H, W), or (B, C, T, H, W), divided by the patch size, then all text tokens."""
        extents = call["hidden_states"].shape[2:]
        extents = [n // p for n, p in zip(extents, call.config.patch_size, strict=True)]
        frames, height, width = extents if len(extents) == 3 else (1, *extents)
        return TokenGrid(frames, height, width, after=self.text_tokens(call))

    def text_tokens(self, call: Call) -> int:
        """Text and glyphs."""
        texts = (call[f"encoder_hidden_states{suffix}"] for suffix in self.suffixes(call))
        return sum(text.shape[1] for text in texts)

    def suffixes(self, call: Call) -> tuple[str, ...]:
        """Of the texts that the model uses."""
        glyphs = call.config.text_embed_2_dim is not None
        return SUFFIXES if glyphs and call["encoder_hidden_states_2"] is not None else SUFFIXES[:1]

    def padding(self, call: Call) -> tuple[int, ...]:
        """From both masks: the model puts the tokens that they keep in front of all padding."""
        masks = [call[f"encoder_attention_mask{suffix}"] for suffix in self.suffixes(call)]
        lengths = zip(*map(valid_lengths, masks), strict=True)
        return tuple(self.text_tokens(call) - sum(kept) for kept in lengths)
