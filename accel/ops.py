"""The operator: attention through a block table, whatever the backend."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import torch

from ajour.backends import BACKENDS, backend_reason, load_backend
from ajour.prologue import Prologue

if TYPE_CHECKING:
    from ajour.table import BlockTable

logger = logging.getLogger("ajour")

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
"""Dtypes that every backend takes. `reference` and `cpu` also take float64."""

_chosen: set[tuple[str, str]] = set()


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    table: BlockTable,
    *,
    prologue: Prologue | None = None,
    scale: float | None = None,
    backend: str | None = None,
    return_lse: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Block-sparse multi-level self-attention.

    Args:
        q: queries, (batch, tokens, heads, head_dim), in the model's token order.
        k: keys, same shape.
        v: values, same shape.
        table: which key blocks each query block attends to, for each head.
        prologue: norms and rotary embedding to apply to q and k first; GPU backends do so in the
            pass that packs them. Without it q and k are taken as they are.
        scale: factor on the logits; 1 / sqrt(head_dim) by default.
        backend: one of `ajour.BACKENDS`; an explicit one is used or raises. None chooses the
            fastest that can run here and logs the choice once.
        return_lse: also return the log-sum-exp of the logits.

    Returns:
        The output, shaped and typed like q; with `return_lse` also the natural log-sum-exp,
        float32 (batch, heads, tokens). A query without keys gives 0 and -inf.

    Raises:
        ValueError: if shapes disagree with each other, with the table or with the prologue, the
            scale is not positive, or the backend is unknown.
        TypeError: if dtypes are not supported.
        RuntimeError: if an input requires grad, or an explicit backend cannot run here.
    """
    _check(q, k, v, table)
    name = backend if backend is not None else _choose(q)
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; backends are {', '.join(BACKENDS)}")
    reason = backend_reason(name, q.device, q.dtype, q.shape[-1])
    if reason is not None:
        raise RuntimeError(f"backend {name!r} cannot run this: {reason}")
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    prologue = prologue or Prologue()
    prologue.check(table.grid, q.shape[2], q.shape[3])
    out, lse = load_backend(name)(q, k, v, table, scale, prologue)
    return (out, lse) if return_lse else out


def _choose(q: torch.Tensor) -> str:
    """The fastest backend that can run these tensors; logs once per device type why."""
    skipped: list[str] = []
    for name in BACKENDS:
        reason = backend_reason(name, q.device, q.dtype, q.shape[-1])
        if reason is None:
            if (name, q.device.type) not in _chosen:
                _chosen.add((name, q.device.type))
                why = f" ({'; '.join(skipped)})" if skipped else ""
                logger.info("backend %r for %s tensors%s", name, q.device.type, why)
            return name
        skipped.append(f"{name}: {reason}")
    raise RuntimeError(f"no backend can run on {q.device} with {q.dtype}: {'; '.join(skipped)}")


def _check(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, table: BlockTable) -> None:
    """Raise a clear error unless the inputs fit each other and the table."""
    if q.ndim != 4 or q.shape != k.shape or q.shape != v.shape:
        raise ValueError(
            "q, k and v must share one shape (batch, tokens, heads, head_dim), got "
            f"{tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if q.shape[1] != table.grid.seq_len or q.shape[2] != table.heads:
        raise ValueError(
            f"the table is for {table.grid.seq_len} tokens (grid {table.grid}) and "
            f"{table.heads} heads, got {q.shape[1]} tokens and {q.shape[2]} heads; "
            "lower the patterns again for this grid"
        )
    if not (q.dtype == k.dtype == v.dtype) or q.dtype not in (*DTYPES, torch.float64):
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
