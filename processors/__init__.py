"""How the attention of diffusers transformers is reached: one processor, one file per family."""

from __future__ import annotations

from ajour.processors.base import Call, Family, Obstacle
from ajour.processors.layer import LayerState
from ajour.processors.processor import SparseProcessor
from ajour.processors.registry import (
    class_name,
    family_of,
    supported_pipelines,
    supported_transformers,
)

__all__ = [
    "Call",
    "Family",
    "LayerState",
    "Obstacle",
    "SparseProcessor",
    "class_name",
    "family_of",
    "supported_pipelines",
    "supported_transformers",
]
