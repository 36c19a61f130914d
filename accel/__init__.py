"""ajour: per-head block-sparse attention for diffusion transformers, on stock diffusers.

The core needs only torch and numpy; everything that touches diffusers is imported on first use.
"""

from __future__ import annotations

if __name__ != "ajour":
    raise ImportError(
        f"this package is imported as 'ajour', not as {__name__!r}; run `pip install -e .`"
    )

from typing import TYPE_CHECKING, Any

from ajour.backends import BACKENDS
from ajour.grid import BLOCK, TokenGrid
from ajour.lowering import lower
from ajour.ops import attention
from ajour.orders import ORDERS, order
from ajour.patterns import (
    KINDS,
    Captured,
    Diagonal,
    Full,
    MultiDiagonal,
    Pattern,
    Pyramid,
    Skip,
    Stripe,
    Window,
)
from ajour.plan import Plan, PlanError
from ajour.prologue import Norm, Prologue, Rope
from ajour.schedule import Phase, Schedule
from ajour.table import BlockTable

if TYPE_CHECKING:
    from ajour.pipelines import (
        Auto,
        current_plan,
        disable,
        enable,
        sparse,
        summary,
        supported_pipelines,
    )
    from ajour.search.find import find_plan

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load the diffusers side on first use: all names of `__all__` that are not here yet."""
    if name == "find_plan":  # not `search`, which is the name of the package it is in
        from ajour.search.find import find_plan

        return find_plan
    if name in __all__:
        import ajour.pipelines

        return getattr(ajour.pipelines, name)
    raise AttributeError(f"module 'ajour' has no attribute {name!r}")


__all__ = [
    "BACKENDS",
    "BLOCK",
    "KINDS",
    "ORDERS",
    "Auto",
    "BlockTable",
    "Captured",
    "Diagonal",
    "Full",
    "MultiDiagonal",
    "Norm",
    "Pattern",
    "Phase",
    "Plan",
    "PlanError",
    "Prologue",
    "Pyramid",
    "Rope",
    "Schedule",
    "Skip",
    "Stripe",
    "TokenGrid",
    "Window",
    "attention",
    "current_plan",
    "disable",
    "enable",
    "find_plan",
    "lower",
    "order",
    "sparse",
    "summary",
    "supported_pipelines",
]
