"""Kin of FLUX.1 with a mask for text padding: Chroma and Bria FIBO.

FIBO's report: https://arxiv.org/abs/2511.06876
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ajour.processors.base import Obstacle
from ajour.processors.flux import Flux
from ajour.processors.host import hidden_runs

if TYPE_CHECKING:
    import torch

    from ajour.grid import TokenGrid
    from ajour.processors.base import Call


class BriaFibo(Flux):
    """Bria FIBO text-to-image and editing."""

    classes: ClassVar[tuple[str, ...]] = ("BriaFiboTransformer2DModel",)
    processors: ClassVar[tuple[str, ...]] = ("BriaAttnProcessor", "BriaFiboAttnProcessor")
    pipelines: ClassVar[tuple[str, ...]] = ("BriaFiboEditPipeline", "BriaFiboPipeline")
    sparse: ClassVar[str] = (
        "joint attention of text and image in dual-stream and single-stream blocks; text padding "
        "is left out, reference images of another size are exact"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "calls whose mask hides other tokens than text padding: only that is left out exactly",
        Flux.dense[-1],
    )

    def mask(self, call: Call) -> torch.Tensor | None:
        """Of text and image, (batch, ..., tokens), true where a token is kept."""
        mask: torch.Tensor | None = (call["joint_attention_kwargs"] or {}).get("attention_mask")
        return mask

    def grid(self, call: Call) -> TokenGrid:
        """Same as FLUX.1's."""
        mask, text = self.mask(call), call["encoder_hidden_states"].shape[1]
        if mask is not None and mask.is_floating_point():
            raise Obstacle("attention_mask is floating, so that it is added to logits")
        runs = () if mask is None else hidden_runs(mask)
        if runs is None or any(start < end != text for start, end in runs):
            raise Obstacle("attention_mask hides other tokens than text padding")
        return self.text_and_image(call)

    def padding(self, call: Call) -> tuple[int, ...]:
        """From the mask."""
        mask = self.mask(call)
        runs = () if mask is None else hidden_runs(mask) or ()
        return tuple(end - start for start, end in runs)

    def padding_end(self, call: Call, whole: TokenGrid) -> int:
        """Where text ends, in front of the image."""
        return int(call["encoder_hidden_states"].shape[1])


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
        """The argument of that name."""
        mask: torch.Tensor | None = call["attention_mask"]
        return mask
