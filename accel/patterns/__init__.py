"""Kinds of pattern: what a head attends to, in grid coordinates."""

from __future__ import annotations

from ajour.patterns.base import GeometricPattern, Pattern
from ajour.patterns.captured import Captured
from ajour.patterns.diagonal import Diagonal
from ajour.patterns.full import Full
from ajour.patterns.multi_diagonal import MultiDiagonal
from ajour.patterns.pyramid import Pyramid
from ajour.patterns.skip import Skip
from ajour.patterns.stripe import Stripe
from ajour.patterns.window import Window

KINDS: dict[str, type[Pattern]] = {
    cls.kind: cls
    for cls in (Full, Skip, Window, Diagonal, MultiDiagonal, Stripe, Pyramid, Captured)
}
"""Every kind of pattern by the name that plan files use."""

__all__ = [
    "KINDS",
    "Captured",
    "Diagonal",
    "Full",
    "GeometricPattern",
    "MultiDiagonal",
    "Pattern",
    "Pyramid",
    "Skip",
    "Stripe",
    "Window",
]
