"""FramePack (`HunyuanVideoFramepackTransformer3DModel`): HunyuanVideo behind packed past frames.

Paper: https://arxiv.org/abs/2504.12626
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, prod
from typing import TYPE_CHECKING, ClassVar

from ajour.processors.host import valid_lengths
from ajour.processors.hunyuan_video import HunyuanVideo

if TYPE_CHECKING:
    from ajour.grid import TokenGrid
    from ajour.processors.base import Call

HISTORY = {
    "latents_clean": (1, 2, 2),
    "latents_history_2x": (2, 4, 4),
    "latents_history_4x": (4, 8, 8),
}
"""Arguments that hold past frames, and the size of their patches."""


class HunyuanVideoFramepack(HunyuanVideo):
    """FramePack image-to-video, section by section."""

    classes: ClassVar[tuple[str, ...]] = ("HunyuanVideoFramepackTransformer3DModel",)
    pipelines: ClassVar[tuple[str, ...]] = ("HunyuanVideoFramepackPipeline",)
    sparse: ClassVar[str] = (
        "joint attention of video and text in dual-stream and single-stream blocks; packed past "
        "frames and image tokens are exact, text padding is left out"
    )

    def grid(self, call: Call) -> TokenGrid:
        """Packed past frames, the section's video, then image and text."""
        given = {name: call[name] for name in HISTORY if call[f"indices_{name}"] is not None}
        sizes = [
            prod(ceil(n / p) for n, p in zip(latents.shape[2:], HISTORY[name], strict=True))
            for name, latents in given.items()
            if latents is not None
        ]
        return replace(super().grid(call), before=sum(sizes))

    def text_tokens(self, call: Call) -> int:
        """Image and text; for one sample the model itself leaves padding out."""
        mask, image = call["encoder_attention_mask"], int(call["image_embeds"].shape[1])
        return image + (valid_lengths(mask)[0] if len(mask) == 1 else int(mask.shape[1]))

    def padding(self, call: Call) -> tuple[int, ...]:
        """From the text mask; none for one sample."""
        mask = call["encoder_attention_mask"]
        if len(mask) == 1:
            return ()
        return tuple(mask.shape[1] - length for length in valid_lengths(mask))
