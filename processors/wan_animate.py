"""Wan Animate (`WanAnimateTransformer3DModel`): Wan behind a frame of the character."""

from __future__ import annotations

from typing import ClassVar

from ajour.processors.wan import Wan


class WanAnimate(Wan):
    """Wan Animate: a character driven by poses and faces."""

    classes: ClassVar[tuple[str, ...]] = ("WanAnimateTransformer3DModel",)
    pipelines: ClassVar[tuple[str, ...]] = ("WanAnimatePipeline",)
    sparse: ClassVar[str] = (
        "self-attention (`attn1`) of every block; the character's frame is the grid's first"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "cross-attention (`attn2`) to text and images: its keys are few",
        "the face adapter: each frame attends to a few tokens of its own",
    )
