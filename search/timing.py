"""What each candidate costs on this device: the operator timed on it, one head at a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from ajour.lowering import lower
from ajour.ops import attention

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.patterns import Pattern
    from ajour.table import BlockTable


def head_costs(
    candidates: Sequence[Pattern],
    grid: TokenGrid,
    heads: int,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device,
    backend: str | None = None,
    repeats: int = 7,
) -> NDArray[np.float64]:
    """Time of one head under each candidate, relative to a head of dense attention.

    Args:
        candidates: the patterns.
        grid: the token grid.
        heads: heads of a layer; dense attention is timed on all of them together.
        head_dim: channels of a head.
        dtype: of q, k and v.
        device: where to time.
        backend: the operator's backend; None chooses.
        repeats: timings of each, in turns; their medians are taken.

    Returns:
        (C,), 1 for what costs as much as dense attention.
    """
    shape = (1, grid.seq_len, heads, head_dim)
    q, k, v = (torch.randn(shape, device=device, dtype=dtype) for _ in range(3))

    def dense() -> object:
        return F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        )

    def one_head(table: BlockTable) -> Callable[[], object]:
        parts = [x[:, :, :1].contiguous() for x in (q, k, v)]
        return lambda: attention(parts[0], parts[1], parts[2], table, backend=backend)

    tables = [lower([pattern], grid).to(device) for pattern in candidates]
    calls = [dense, *(one_head(table) for table in tables)]
    seconds = np.array([[_seconds(call, device) for call in calls] for _ in range(repeats + 1)])
    medians = np.median(seconds[1:], axis=0)  # the first round compiles and warms up
    return np.asarray(medians[1:] / (medians[0] / heads))


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
