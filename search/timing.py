"""Timing, and fitting times of layers with any mix of patterns.

A layer's attention costs a fixed time, more if keys have to be pooled, plus a time per head that
depends on the head's pattern. Where a backend works pattern by pattern, the first head of a pattern
costs more than further ones.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

NEIGHBOURS = 15
"""Calls, one after the other, that tell how fast the machine is at the time."""

FIRST_SHARES = tuple(step / 20 for step in range(21))
"""Tried values of what the first head of a pattern costs beyond a further one."""

SMOOTHINGS = 3
"""Rounds of taking the machine's speed out of the times."""


class LayerTimer:
    """Times a layer's attention within passes, without waiting for a GPU there.

    To be called before and after each call of the operator.

    Args:
        device: that passes run on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[Any] = []

    def __call__(self) -> None:
        """Note the time."""
        if self._device.type == "cuda":
            mark = torch.cuda.Event(enable_timing=True)
            mark.record(torch.cuda.current_stream(self._device))
            self._marks.append(mark)
        else:
            self._marks.append(time.perf_counter())

    def take(self) -> float:
        """Seconds in the operator since the last call of this, once the device is idle."""
        marks, self._marks = self._marks, []
        if self._device.type == "cuda":
            spent = (a.elapsed_time(b) / 1e3 for a, b in zip(marks[::2], marks[1::2], strict=True))
        else:
            spent = (b - a for a, b in zip(marks[::2], marks[1::2], strict=True))
        return float(sum(spent))


def fit(
    used: NDArray[np.float64], pooled: NDArray[np.bool_], measured: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Fit layers' times, of least relative squared error.

    Args:
        used: (layers, C), heads of each candidate.
        pooled: (C,), whether a candidate has pooled keys.
        measured: (layers,), seconds.

    Returns:
        What the first head of a pattern costs beyond a further one, as a share of it: the least of
        `FIRST_SHARES` that is nearly as good as any; and the seconds of a layer, of pooling in it,
        and of a head of each candidate, 2 + C of them, never negative.
    """
    from scipy.optimize import nnls

    found = []
    for first in FIRST_SHARES:
        rows = design(used, pooled, first) / measured[:, None]
        times, residual = nnls(rows, np.ones(len(measured)))
        found.append((residual, first, times))
    enough = 1.05 * min(residual for residual, _, _ in found) + 1e-9
    return next((first, times) for residual, first, times in found if residual <= enough)


def design(
    used: NDArray[np.float64], pooled: NDArray[np.bool_], first: float
) -> NDArray[np.float64]:
    """What the times that `fit` gives are multiplied by: (layers, 2 + C)."""
    pools = used[:, pooled].any(axis=1)
    return np.column_stack([np.ones(len(used)), pools, used + first * (used > 0)])


def typical_times(turns: NDArray[np.float64], orders: NDArray[np.int64]) -> NDArray[np.float64]:
    """Typical seconds of calls that were timed in turns on a machine of changing speed.

    Rounds have orders of their own. How slow the machine is at a moment is then told by the calls
    around it: the median of their times, each over its own typical time.

    Args:
        turns: (rounds, calls), seconds in the order in which they were measured.
        orders: (rounds, calls), which call each of them is.

    Returns:
        (calls,), at the median speed of the machine.
    """
    from scipy.ndimage import median_filter

    slowness = np.ones(turns.size)
    for _ in range(SMOOTHINGS):
        even = np.empty_like(turns)
        np.put_along_axis(even, orders, turns / slowness.reshape(turns.shape), axis=1)
        typical = np.median(even, axis=0)
        slowness = median_filter((turns / typical[orders]).ravel(), NEIGHBOURS, mode="nearest")
        slowness /= np.median(slowness)
    return np.asarray(typical)


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call, all of a GPU's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
