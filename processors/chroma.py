"""Chroma (`ChromaTransformer2DModel`): FLUX.1 with a mask for text padding."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ajour.processors.base import Obstacle
from ajour.processors.bria_fibo import BriaFibo

if TYPE_CHECKING:
    import torch

    from ajour.grid import TokenGrid
    from ajour.processors.base import Call


class Chroma(BriaFibo):
    """Chroma text-to-image, image-to-image and inpainting."""

    classes: ClassVar[tuple[str, ...]] = ("ChromaTransformer2DModel",)
    processors: ClassVar[tuple[str, ...]] = ("FluxAttnProcessor",)
    pipelines: ClassVar[tuple[str, ...]] = (
        "ChromaImg2ImgPipeline",
        "ChromaInpaintPipeline",
        "ChromaPipeline",
    )
    dense: ClassVar[tuple[str, ...]] = (
        *BriaFibo.dense,
        "calls with a floating `attention_mask`, as the pipelines make from a prompt: diffusers "
        "adds it to logits; give them `prompt_embeds` and a boolean `prompt_attention_mask`",
    )

    def mask(self, call: Call) -> torch.Tensor | None:
        """Of text and image."""
        mask: torch.Tensor | None = call["attention_mask"]
        return mask

    def grid(self, call: Call) -> TokenGrid:
        """Same as FLUX.1's."""
        mask = self.mask(call)
        if mask is not None and mask.is_floating_point():
            raise Obstacle(
                "attention_mask is floating, and diffusers adds it to logits; give the pipeline "
                "prompt_embeds and a boolean prompt_attention_mask"
            )
        return super().grid(call)
