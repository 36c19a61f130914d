"""ajour: per-head block-sparse attention for diffusion transformers, on stock diffusers.

Every public name is loaded on first use, so `import ajour` takes no time: the core then needs torch
and numpy, and only what touches pipelines needs diffusers.
"""

from __future__ import annotations

if __name__ != "ajour":
    raise ImportError(
        f"this package is imported as 'ajour', not as {__name__!r}; run `pip install -e .`"
    )

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ajour.grid import BLOCK, TokenGrid
    from ajour.lowering import lower
    from ajour.names import BACKENDS
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
    from ajour.pipelines.auto import Auto
    from ajour.pipelines.enable import current_plan, disable, enable, sparse
    from ajour.pipelines.summary import summary
    from ajour.plan import Plan, PlanError
    from ajour.processors import supported_pipelines
    from ajour.prologue import Norm, Prologue, Rope
    from ajour.schedule import Phase, Schedule
    from ajour.search.find import find_plan
    from ajour.table import BlockTable

__version__ = "0.1.0"

MODULES = {
    "ajour.grid": ("BLOCK", "TokenGrid"),
    "ajour.lowering": ("lower",),
    "ajour.names": ("BACKENDS",),
    "ajour.ops": ("attention",),
    "ajour.orders": ("ORDERS", "order"),
    "ajour.patterns": (
        "KINDS", "Captured", "Diagonal", "Full", "MultiDiagonal", "Pattern", "Pyramid", "Skip",
        "Stripe", "Window",
    ),
    "ajour.pipelines.auto": ("Auto",),
    "ajour.pipelines.enable": ("current_plan", "disable", "enable", "sparse"),
    "ajour.pipelines.summary": ("summary",),
    "ajour.plan": ("Plan", "PlanError"),
    "ajour.processors": ("supported_pipelines",),
    "ajour.prologue": ("Norm", "Prologue", "Rope"),
    "ajour.schedule": ("Phase", "Schedule"),
    "ajour.search.find": ("find_plan",),  # not `search`, which is the name of the package
    "ajour.table": ("BlockTable",),
}  # fmt: skip
"""The public names, by the module that has them."""


def __getattr__(name: str) -> Any:
    """Load the module of a public name on first use."""
    for module, names in MODULES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(module), name)
            return value
    raise AttributeError(f"module 'ajour' has no attribute {name!r}")


def __dir__() -> list[str]:
    """All public names, also those that are not loaded yet."""
    return sorted({*globals(), *__all__})


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
