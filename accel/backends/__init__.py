"""Backends of the operator: one contract, one oracle (`reference`)."""

from __future__ import annotations

import importlib
import importlib.util
import os
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ajour.prologue import Prologue
    from ajour.table import BlockTable

    Backend = Callable[
        [torch.Tensor, torch.Tensor, torch.Tensor, BlockTable, float, Prologue],
        tuple[torch.Tensor, torch.Tensor],
    ]

KERNEL_BACKENDS = ("hopper", "triton")
"""Backends with Triton kernels: they launch on a GPU, or in Triton's interpreter."""

HOPPER_TRITON = (3, 6)
"""The first Triton release whose Gluon can express the Hopper kernel."""


def load_backend(name: str) -> Backend:
    """The function (q, k, v, table, scale, prologue) -> (out, lse) of a backend.

    It takes inputs that `ajour.dispatch` has checked, of at least one sample and one head. Its
    module is imported on first use.
    """
    module = f"{name}.launch" if name in KERNEL_BACKENDS else name
    function: Backend = importlib.import_module(f"ajour.backends.{module}").attend
    return function


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU the current device, because Triton launches kernels there."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def backend_reason(
    name: str, device: torch.device, dtype: torch.dtype, head_dim: int
) -> str | None:
    """Why a backend cannot run tensors like these, or None if it can."""
    if name == "reference":
        return None
    if name == "cpu":
        return None if device.type == "cpu" else f"tensors are on {device.type}"
    if not _triton_is_installed():
        return "Triton is not installed (pip install triton)"
    if name == "hopper":
        return _hopper_reason(device, dtype, head_dim)
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device.type != "cuda" and not interpreted:
        return f"needs a GPU, tensors are on {device.type}"
    if interpreted and dtype == torch.bfloat16:
        return "Triton's interpreter computes bfloat16 wrongly"
    if dtype == torch.float64:
        return "float64 is for the reference and cpu backends"
    limit = 128 if dtype == torch.float32 else 256
    if head_dim > limit:
        return f"head_dim is at most {limit} in {str(dtype)[6:]}, got {head_dim}"
    return None


def _hopper_reason(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    if device.type != "cuda":
        return f"needs a Hopper GPU, tensors are on {device.type}"
    if torch.version.hip is not None:
        return "needs a Hopper GPU, this one is AMD's"
    capability = torch.cuda.get_device_capability(device)
    if capability != (9, 0):
        return f"needs compute capability 9.0, this GPU has {capability[0]}.{capability[1]}"
    installed = triton_version()
    if tuple(int(part) for part in installed.split(".")[:2]) < HOPPER_TRITON:
        return f"needs Triton {'.'.join(map(str, HOPPER_TRITON))} or newer, got {installed}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"takes float16 and bfloat16, got {str(dtype)[6:]}"
    if head_dim not in (64, 128):
        return f"head_dim must be 64 or 128, got {head_dim}"
    return None


@cache
def _triton_is_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@cache
def triton_version() -> str:
    """Version of the installed Triton."""
    version: str = importlib.import_module("triton").__version__
    return version
