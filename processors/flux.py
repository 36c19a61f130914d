"""FLUX.1 (`FluxTransformer2DModel`): text, then one image; two kinds of block."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from ajour.processors.base import Family, Obstacle
from ajour.processors.fused import Fusion
from ajour.processors.host import read_once
from ajour.processors.raster import raster_of

if TYPE_CHECKING:
    import torch

    from ajour.grid import TokenGrid
    from ajour.processors.base import Call


class Flux(Family):
    """FLUX.1 text-to-image, image-to-image, fill, control and Kontext."""

    classes: ClassVar[tuple[str, ...]] = ("FluxTransformer2DModel",)
    processors: ClassVar[tuple[str, ...]] = ("FluxAttnProcessor",)
    fusion: ClassVar[Fusion] = Fusion(text_first=True)
    blocks: ClassVar[tuple[str, ...]] = ("transformer_blocks", "single_transformer_blocks")
    pipelines: ClassVar[tuple[str, ...]] = (
        "FluxControlImg2ImgPipeline",
        "FluxControlInpaintPipeline",
        "FluxControlNetImg2ImgPipeline",
        "FluxControlNetInpaintPipeline",
        "FluxControlNetPipeline",
        "FluxControlPipeline",
        "FluxFillPipeline",
        "FluxImg2ImgPipeline",
        "FluxInpaintPipeline",
        "FluxKontextInpaintPipeline",
        "FluxKontextPipeline",
        "FluxPipeline",
        "VisualClozeGenerationPipeline",
        "VisualClozePipeline",
    )
    sparse: ClassVar[str] = (
        "joint attention of text and image in dual-stream and single-stream blocks; reference "
        "images of another size are exact"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "blocks with an IP-adapter: their processor adds attention to the image prompt",
        "calls with an `attention_mask`: a block table knows nothing of it",
        "calls where less than half the image tokens are one grid: too little could be left out",
    )

    def grid(self, call: Call) -> TokenGrid:
        """All text tokens, then the image and its references, as `img_ids` gives them.

        References of the image's size are more frames of the grid, others are exact.
        """
        if (call["joint_attention_kwargs"] or {}).get("attention_mask") is not None:
            raise Obstacle("joint_attention_kwargs holds an attention_mask")
        return self.text_and_image(call)

    def text_and_image(self, call: Call) -> TokenGrid:
        """The grid of a call, whatever its mask."""
        raster = image_raster(call["img_ids"])
        if raster is None:
            raise Obstacle("less than half the image tokens are one grid, going by img_ids")
        return replace(raster, before=raster.before + call["encoder_hidden_states"].shape[1])


@read_once
def image_raster(img_ids: torch.Tensor) -> TokenGrid | None:
    """The raster among the image tokens.

    Args:
        img_ids: (tokens, 3 or more): t, h, w of each token, or (batch, tokens, 3 or more), of
            which diffusers uses the first sample.
    """
    return raster_of((img_ids[0] if img_ids.ndim == 3 else img_ids)[:, :3])
