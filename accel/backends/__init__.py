"""Backends of the operator: one contract, one oracle (`reference`)."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from ajour.table import BlockTable

    Backend = Callable[
        [torch.Tensor, torch.Tensor, torch.Tensor, BlockTable, float],
        tuple[torch.Tensor, torch.Tensor],
    ]

BACKENDS = ("triton", "cpu", "reference")
"""Every backend, fastest first: the order in which `backend=None` tries them."""


def load_backend(name: str) -> Backend:
    """The function (q, k, v, table, scale) -> (out, lse) of a backend, imported on first use."""
    module = "triton.launch" if name == "triton" else name
    function: Backend = importlib.import_module(f"ajour.backends.{module}").attend
    return function


def backend_reason(
    name: str, device: torch.device, dtype: torch.dtype, head_dim: int
) -> str | None:
    """Why a backend cannot run tensors like these, or None if it can."""
    if name == "reference":
        return None
    if name == "cpu":
        return None if device.type == "cpu" else f"tensors are on {device.type}"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install triton)"
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
