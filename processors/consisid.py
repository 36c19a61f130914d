"""ConsisID (`ConsisIDTransformer3DModel`): CogVideoX with a face beside it.

Paper: https://arxiv.org/abs/2411.17440
"""

from __future__ import annotations

from typing import ClassVar

from ajour.processors.cogvideox import CogVideoX


class ConsisID(CogVideoX):
    """ConsisID text-to-video that keeps a face."""

    classes: ClassVar[tuple[str, ...]] = ("ConsisIDTransformer3DModel",)
    pipelines: ClassVar[tuple[str, ...]] = ("ConsisIDPipeline",)
    dense: ClassVar[tuple[str, ...]] = ("cross-attention to the face: its keys are few",)
