"""Wan VACE (`WanVACETransformer3DModel`): Wan with blocks for control beside it."""

from __future__ import annotations

from typing import Any, ClassVar

from ajour.processors.wan import Wan


class WanVACE(Wan):
    """Wan VACE: control, inpainting and references in one."""

    classes: ClassVar[tuple[str, ...]] = ("WanVACETransformer3DModel",)
    pipelines: ClassVar[tuple[str, ...]] = ("WanVACEPipeline",)
    sparse: ClassVar[str] = "self-attention (`attn1`) of every block and of every control block"

    def layers(self, transformer: Any) -> list[Any]:
        """`attn1` of every block, then of every control block, which has the same tokens."""
        return super().layers(transformer) + [block.attn1 for block in transformer.vace_blocks]
