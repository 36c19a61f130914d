"""Offline search: which pattern each head needs, measured on the user's own model and device."""

from __future__ import annotations

from ajour.search.calibrate import Errors, calibrate
from ajour.search.solve import solve
from ajour.search.timing import head_costs

__all__ = ["Errors", "calibrate", "head_costs", "solve"]
