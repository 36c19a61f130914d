"""LTX-Video (`LTXVideoTransformer3DModel`): video tokens only."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ajour.grid import TokenGrid
from ajour.processors.base import Family, Obstacle
from ajour.processors.host import read_once
from ajour.processors.raster import raster_of

if TYPE_CHECKING:
    import torch

    from ajour.processors.base import Call


class LTX(Family):
    """LTX-Video text-to-video, image-to-video and conditioned on frames."""

    classes: ClassVar[tuple[str, ...]] = ("LTXVideoTransformer3DModel",)
    processors: ClassVar[tuple[str, ...]] = ("LTXVideoAttnProcessor",)
    attention: ClassVar[str] = "attn1"
    pipelines: ClassVar[tuple[str, ...]] = (
        "LTXConditionPipeline",
        "LTXI2VLongMultiPromptPipeline",
        "LTXImageToVideoPipeline",
        "LTXPipeline",
    )
    sparse: ClassVar[str] = (
        "self-attention (`attn1`) of every block; frames to condition on, appended or in front, "
        "are exact"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "cross-attention (`attn2`) to text: its keys are few",
        "calls where less than half the tokens are one video: too little could be left out",
    )

    def grid(self, call: Call) -> TokenGrid:
        """`num_frames`, `height` and `width`, or else the raster of `video_coords`.

        Frames to condition on lie around the raster and are exact.
        """
        if call["video_coords"] is None:
            return TokenGrid(call["num_frames"], call["height"], call["width"])
        raster = video_raster(call["video_coords"])
        if raster is None:
            raise Obstacle("less than half the tokens are one video, going by video_coords")
        return raster


@read_once
def video_raster(video_coords: torch.Tensor) -> TokenGrid | None:
    """The raster among the tokens; None also if samples differ.

    Args:
        video_coords: t, h and w of each token, evenly spaced or not: (batch, 3, tokens), or
            (batch, 3, tokens, 2) for where each token starts and ends.
    """
    if not bool((video_coords == video_coords[:1]).all()):
        return None
    places = video_coords[0] if video_coords.ndim == 3 else video_coords[0, :, :, 0]
    return raster_of(places.T)
