"""Bria FIBO (`BriaFiboTransformer2DModel`): FLUX.1 with a mask for text padding.

Report: https://arxiv.org/abs/2511.06876
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ajour.processors.flux import Flux
from ajour.processors.masked import ONE_STRETCH, MaskedText

if TYPE_CHECKING:
    import torch

    from ajour.grid import TokenGrid
    from ajour.processors.base import Call


class BriaFibo(MaskedText, Flux):
    """Bria FIBO text-to-image and editing."""

    classes: ClassVar[tuple[str, ...]] = ("BriaFiboTransformer2DModel",)
    processors: ClassVar[tuple[str, ...]] = ("BriaAttnProcessor", "BriaFiboAttnProcessor")
    pipelines: ClassVar[tuple[str, ...]] = ("BriaFiboEditPipeline", "BriaFiboPipeline")
    sparse: ClassVar[str] = (
        "joint attention of text and image in dual-stream and single-stream blocks; text padding "
        "is left out, reference images of another size are exact"
    )
    dense: ClassVar[tuple[str, ...]] = (ONE_STRETCH, Flux.dense[-1])

    def mask(self, call: Call) -> torch.Tensor | None:
        """Of text and image."""
        mask: torch.Tensor | None = (call["joint_attention_kwargs"] or {}).get("attention_mask")
        return mask

    def grid(self, call: Call) -> TokenGrid:
        """Same as FLUX.1's."""
        self.hidden(call)
        return self.text_and_image(call)
