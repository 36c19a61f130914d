"""HunyuanVideo (`HunyuanVideoTransformer3DModel`): video, then text; two kinds of block.

A mask hides padding at the end of the text. Its rows never reach the video: they are keys of no
layer, and everything else in a block works token by token. So attention leaves them out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ajour.grid import TokenGrid
from ajour.processors.base import Family
from ajour.processors.fused import Fusion
from ajour.processors.host import valid_lengths

if TYPE_CHECKING:
    from ajour.processors.base import Call


class HunyuanVideo(Family):
    """HunyuanVideo text-to-video and image-to-video."""

    classes: ClassVar[tuple[str, ...]] = ("HunyuanVideoTransformer3DModel",)
    processors: ClassVar[tuple[str, ...]] = ("HunyuanVideoAttnProcessor2_0",)
    fusion: ClassVar[Fusion] = Fusion()
    blocks: ClassVar[tuple[str, ...]] = ("transformer_blocks", "single_transformer_blocks")
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

    def grid(self, call: Call) -> TokenGrid:
        """(B, C, T, H, W) divided by the patch sizes, then all text tokens."""
        frames, height, width = call["hidden_states"].shape[2:]
        config = call.config
        return TokenGrid(
            frames // config.patch_size_t,
            height // config.patch_size,
            width // config.patch_size,
            after=self.text_tokens(call),
        )

    def text_tokens(self, call: Call) -> int:
        """All tokens after the video."""
        return int(call["encoder_hidden_states"].shape[1])

    def padding(self, call: Call) -> tuple[int, ...]:
        """From the text mask."""
        text = self.text_tokens(call)
        return tuple(text - length for length in valid_lengths(call["encoder_attention_mask"]))
