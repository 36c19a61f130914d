"""Checking the operator's inputs, choosing a backend, running it."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import torch

from ajour.backends import backend_reason, load_backend, on_device
from ajour.names import BACKENDS

if TYPE_CHECKING:
    from ajour.prologue import Prologue
    from ajour.table import BlockTable

logger = logging.getLogger("ajour")

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_chosen: set[tuple[str, str]] = set()


def run(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    table: BlockTable,
    prologue: Prologue,
    scale: float,
    backend: str | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Check all arguments, then run a backend; arguments, result and errors: see `attention`."""
    _check(q, k, v, table)
    prologue.check(table.grid, q.shape[2], q.shape[3], q.device)
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be positive and finite, got {scale}")
    name = checked_backend(backend, q)
    if q.numel() == 0:  # kernels cannot be launched on nothing
        batch, tokens, heads, _ = q.shape
        lse = q.new_empty((batch, heads, tokens), dtype=torch.float32)
        return torch.empty_like(q, memory_format=torch.contiguous_format), lse
    with on_device(q.device):
        return load_backend(name)(q, k, v, table, scale, prologue)


def checked_backend(backend: str | None, q: torch.Tensor) -> str:
    """The name of the backend to use; None chooses the fastest that can run.

    Args:
        backend: what the caller asked for.
        q: (..., head_dim), whose device and dtype decide.

    Raises:
        ValueError: if the backend is unknown.
        RuntimeError: if it cannot run such tensors.
    """
    if backend is None:
        return choose(q.device, q.dtype, q.shape[-1])
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; backends are {', '.join(BACKENDS)}")
    reason = backend_reason(backend, q.device, q.dtype, q.shape[-1])
    if reason is not None:
        raise RuntimeError(f"backend {backend!r} cannot run this: {reason}")
    return backend


def choose(device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """The fastest backend that can run such tensors; the reasons are logged once per device type.

    Raises:
        RuntimeError: if no backend can, with the reasons.
    """
    skipped: list[str] = []
    for name in BACKENDS:
        reason = backend_reason(name, device, dtype, head_dim)
        if reason is None:
            if (name, device.type) not in _chosen:
                _chosen.add((name, device.type))
                why = f" ({'; '.join(skipped)})" if skipped else ""
                logger.info("backend %r for %s tensors%s", name, device.type, why)
            return name
        skipped.append(f"{name}: {reason}")
    raise RuntimeError(f"no backend can run on {device} with {dtype}: {'; '.join(skipped)}")


def _check(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, table: BlockTable) -> None:
    """Raise an error unless the inputs fit each other and the table."""
    if q.ndim != 4 or q.shape != k.shape or q.shape != v.shape:
        raise ValueError(
            "q, k and v must share one shape (batch, tokens, heads, head_dim), got "
            f"{tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if q.shape[3] < 1:
        raise ValueError(f"q, k and v need a head_dim of at least 1, got {tuple(q.shape)}")
    if q.shape[1] != table.grid.seq_len or q.shape[2] != table.heads:
        raise ValueError(
            f"the table is for {table.grid.seq_len} tokens (grid {table.grid}) and "
            f"{table.heads} heads, got {q.shape[1]} tokens and {q.shape[2]} heads; "
            "lower the patterns again for this grid"
        )
    if not (q.dtype == k.dtype == v.dtype) or q.dtype not in DTYPES:
        raise TypeError(
            "q, k and v must share one dtype of float16, bfloat16, float32 or float64, got "
            f"{q.dtype}, {k.dtype}, {v.dtype}"
        )
    if not (q.device == k.device == v.device):
        raise ValueError(
            f"q, k and v must be on one device, got {q.device}, {k.device}, {v.device}"
        )
    if table.ids.device != q.device:
        raise ValueError(
            f"the table is on {table.ids.device} and the tensors on {q.device}; use table.to()"
        )
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        raise RuntimeError(
            "ajour.attention has no backward pass and an input requires grad; "
            "run under torch.no_grad(), or use dense attention for training"
        )
