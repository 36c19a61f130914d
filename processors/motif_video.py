"""Motif-Video (`MotifVideoTransformer3DModel`): video, then image and text; two kinds of block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ajour.processors.host import valid_lengths
from ajour.processors.hunyuan_video import HunyuanVideo

if TYPE_CHECKING:
    from ajour.processors.base import Call


class MotifVideo(HunyuanVideo):
    """Motif-Video text-to-video and image-to-video."""

    classes: ClassVar[tuple[str, ...]] = ("MotifVideoTransformer3DModel",)
    processors: ClassVar[tuple[str, ...]] = ("MotifVideoAttnProcessor2_0",)
    pipelines: ClassVar[tuple[str, ...]] = ("MotifVideoImage2VideoPipeline", "MotifVideoPipeline")
    sparse: ClassVar[str] = (
        "joint attention of video, image and text in dual-stream and single-stream blocks; text "
        "padding is left out"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "cross-attention to text: its keys are few",
        "the decoder's blocks (`num_decoder_layers`): they attend to two videos, the decoder's and "
        "the encoder's, and a plan has one grid for all layers",
    )

    def layers(self, transformer: Any) -> list[Any]:
        """The self-attention modules of all blocks but the decoder's."""
        layers = super().layers(transformer)
        return layers[: len(layers) - transformer.config.num_decoder_layers]

    def text_tokens(self, call: Call) -> int:
        """Image and text tokens."""
        image = call["image_embeds"]
        tokens = 0 if image is None else int(image.shape[1])
        return tokens + int(call["encoder_hidden_states"].shape[1])

    def padding(self, call: Call) -> tuple[int, ...]:
        """From the text mask; it may be missing."""
        mask = call["encoder_attention_mask"]
        lengths = () if mask is None else valid_lengths(mask)
        return tuple(mask.shape[1] - length for length in lengths)
