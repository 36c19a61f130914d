"""Switching sparse attention on and off for a diffusers pipeline."""

from __future__ import annotations

from ajour.pipelines.enable import disable, enable, sparse, supported_pipelines
from ajour.pipelines.summary import Summary, summary

__all__ = ["Summary", "disable", "enable", "sparse", "summary", "supported_pipelines"]
