"""Offline search: which pattern each head needs, measured on the user's own model and device."""

from __future__ import annotations

from ajour.search.calibrate import Errors, calibrate
from ajour.search.solve import solve

__all__ = ["Errors", "calibrate", "solve"]
