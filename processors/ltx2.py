"""LTX-2 (`LTX2VideoTransformer3DModel`): video beside audio, gated heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ajour.grid import TokenGrid
from ajour.processors.base import Obstacle
from ajour.processors.ltx import LTX

if TYPE_CHECKING:
    from ajour.processors.base import Call


class LTX2(LTX):
    """LTX-2 text-to-video, image-to-video, conditioned on frames, references and HDR."""

    classes: ClassVar[tuple[str, ...]] = ("LTX2VideoTransformer3DModel",)
    processors: ClassVar[tuple[str, ...]] = (
        "LTX2AudioVideoAttnProcessor",
        "LTX2PerturbedAttnProcessor",
    )
    pipelines: ClassVar[tuple[str, ...]] = (
        "LTX2ConditionPipeline",
        "LTX2DFRPipeline",
        "LTX2DFRTemporalRefinePipeline",
        "LTX2HDRPipeline",
        "LTX2ImageToVideoPipeline",
        "LTX2InContextPipeline",
        "LTX2Pipeline",
    )
    sparse: ClassVar[str] = (
        "the video's self-attention (`attn1`) of every block; appended frames and references are "
        "exact"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "the audio's self-attention and all cross-attention: few tokens on one side",
        "calls with a `video_self_attention_mask`: it weakens single pairs of tokens",
        "calls where less than half the tokens are one video: too little could be left out",
    )

    def grid(self, call: Call) -> TokenGrid:
        """Same as LTX-Video's, but `num_frames`, `height` and `width` count before patching."""
        if call["video_self_attention_mask"] is not None:
            raise Obstacle("the call has a video_self_attention_mask")
        if call["video_coords"] is not None:
            return super().grid(call)
        patch = (call.config.patch_size_t, call.config.patch_size, call.config.patch_size)
        sizes = (call["num_frames"], call["height"], call["width"])
        return TokenGrid(*(-(-size // p) for size, p in zip(sizes, patch, strict=True)))
