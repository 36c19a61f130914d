"""ChronoEdit (`ChronoEditTransformer3DModel`): Wan, which edits an image as a short video.

Paper: https://arxiv.org/abs/2510.04290
"""

from __future__ import annotations

from typing import ClassVar

from ajour.processors.wan import Wan


class ChronoEdit(Wan):
    """ChronoEdit image editing, with and without temporal reasoning."""

    classes: ClassVar[tuple[str, ...]] = ("ChronoEditTransformer3DModel",)
    pipelines: ClassVar[tuple[str, ...]] = ("ChronoEditPipeline",)
    sparse: ClassVar[str] = "self-attention (`attn1`) of every block"
