"""Wan VACE (`WanVACETransformer3DModel`): Wan with blocks for control beside it."""

from __future__ import annotations

from typing import ClassVar

from ajour.processors.wan import Wan


class WanVACE(Wan):
    """Wan VACE: control, inpainting and references in one."""

    classes: ClassVar[tuple[str, ...]] = ("WanVACETransformer3DModel",)
    blocks: ClassVar[tuple[str, ...]] = ("blocks", "vace_blocks")
    pipelines: ClassVar[tuple[str, ...]] = ("WanVACEPipeline",)
    sparse: ClassVar[str] = "self-attention (`attn1`) of every block and of every control block"
