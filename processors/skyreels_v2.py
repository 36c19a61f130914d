"""SkyReels-V2 (`SkyReelsV2Transformer3DModel`): Wan, and diffusion forcing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ajour.processors.base import Obstacle, argument
from ajour.processors.wan import Wan, WanSparseProcessor

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from ajour.grid import TokenGrid
    from ajour.processors.base import SparseProcessor

FORCING = "diffusion forcing: every frame has its own noise level, and a plan's phases need one"


class SkyReelsV2SparseProcessor(WanSparseProcessor):
    """The computation of Wan's, under another name."""

    stands_in_for: ClassVar[tuple[str, ...]] = ("SkyReelsV2AttnProcessor",)


class SkyReelsV2(Wan):
    """SkyReels-V2 text-to-video and image-to-video."""

    classes: ClassVar[tuple[str, ...]] = ("SkyReelsV2Transformer3DModel",)
    processors: ClassVar[tuple[type[SparseProcessor], ...]] = (SkyReelsV2SparseProcessor,)
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

    def grid(
        self, transformer: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> TokenGrid:
        """As Wan's."""
        if argument(args, kwargs, 4, "enable_diffusion_forcing"):
            raise Obstacle(FORCING)
        if transformer.config.num_frame_per_block > 1:  # type: ignore[union-attr, operator]
            raise Obstacle("attention is causal over chunks of frames (num_frame_per_block)")
        return super().grid(transformer, args, kwargs)
