"""Switching sparse attention on and off for a diffusers pipeline."""

from __future__ import annotations

from ajour.pipelines.auto import Auto
from ajour.pipelines.enable import current_plan, disable, enable, sparse
from ajour.pipelines.summary import Summary, summary
from ajour.processors import supported_pipelines

__all__ = [
    "Auto",
    "Summary",
    "current_plan",
    "disable",
    "enable",
    "sparse",
    "summary",
    "supported_pipelines",
]
