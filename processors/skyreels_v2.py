"""SkyReels-V2 (`SkyReelsV2Transformer3DModel`): Wan, and diffusion forcing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ajour.processors.base import Obstacle
from ajour.processors.wan import Wan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ajour.grid import TokenGrid
    from ajour.processors.base import Call

FORCING = "diffusion forcing: every frame has its own noise level, and a plan's phases need one"


class SkyReelsV2(Wan):
    """SkyReels-V2 text-to-video and image-to-video."""

    classes: ClassVar[tuple[str, ...]] = ("SkyReelsV2Transformer3DModel",)
    processors: ClassVar[tuple[str, ...]] = ("SkyReelsV2AttnProcessor",)
    pipelines: ClassVar[tuple[str, ...]] = ("SkyReelsV2ImageToVideoPipeline", "SkyReelsV2Pipeline")
    dense_pipelines: ClassVar[Mapping[str, str]] = {
        "SkyReelsV2DiffusionForcingImageToVideoPipeline": FORCING,
        "SkyReelsV2DiffusionForcingPipeline": FORCING,
        "SkyReelsV2DiffusionForcingVideoToVideoPipeline": FORCING,
    }
    sparse: ClassVar[str] = "self-attention (`attn1`) of every block"
    dense: ClassVar[tuple[str, ...]] = (
        *Wan.dense,
        "causal attention (`num_frame_per_block` above 1): a block of tokens lies across frames",
    )

    def grid(self, call: Call) -> TokenGrid:
        """Same as Wan's."""
        if call["enable_diffusion_forcing"]:
            raise Obstacle(FORCING)
        if call.config.num_frame_per_block > 1:
            raise Obstacle("attention is causal over chunks of frames (num_frame_per_block)")
        return super().grid(call)
