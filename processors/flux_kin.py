"""Kin of FLUX.1, whose tokens and blocks are the same: Ovis-Image, LongCat-Image and Bria 3.2.

Reports: https://arxiv.org/abs/2511.22982 (Ovis-Image), https://arxiv.org/abs/2512.07584
(LongCat-Image).
"""

from __future__ import annotations

from typing import ClassVar

from ajour.processors.flux import Flux

DENSE = ("calls where less than half the image tokens are one grid: too little could be left out",)


class OvisImage(Flux):
    """Ovis-Image text-to-image."""

    classes: ClassVar[tuple[str, ...]] = ("OvisImageTransformer2DModel",)
    processors: ClassVar[tuple[str, ...]] = ("OvisImageAttnProcessor",)
    pipelines: ClassVar[tuple[str, ...]] = ("OvisImagePipeline",)
    sparse: ClassVar[str] = (
        "joint attention of text and image in dual-stream and single-stream blocks"
    )
    dense: ClassVar[tuple[str, ...]] = DENSE


class LongCatImage(Flux):
    """LongCat-Image text-to-image and editing."""

    classes: ClassVar[tuple[str, ...]] = ("LongCatImageTransformer2DModel",)
    processors: ClassVar[tuple[str, ...]] = ("LongCatImageAttnProcessor",)
    pipelines: ClassVar[tuple[str, ...]] = ("LongCatImageEditPipeline", "LongCatImagePipeline")
    dense: ClassVar[tuple[str, ...]] = DENSE


class Bria(Flux):
    """Bria 3.2 text-to-image."""

    classes: ClassVar[tuple[str, ...]] = ("BriaTransformer2DModel",)
    processors: ClassVar[tuple[str, ...]] = ("BriaAttnProcessor",)
    pipelines: ClassVar[tuple[str, ...]] = ("BriaPipeline",)
    sparse: ClassVar[str] = OvisImage.sparse
    dense: ClassVar[tuple[str, ...]] = DENSE
