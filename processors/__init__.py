"""diffusers attention processors, one file per model family, and the registry that picks one."""

from __future__ import annotations

from ajour.processors.base import Family, LayerContext, Obstacle, SparseProcessor
from ajour.processors.registry import family_of, supported_pipelines, supported_transformers

__all__ = [
    "Family",
    "LayerContext",
    "Obstacle",
    "SparseProcessor",
    "family_of",
    "supported_pipelines",
    "supported_transformers",
]
