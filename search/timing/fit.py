"""Fitting the times of layers with any mix of patterns.

A layer's attention costs a fixed time, more if keys are pooled, plus a time per head that depends
on the head's pattern. Where a backend works pattern by pattern, the first head of a pattern costs
more than further heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEIGHBOURS = 15
"""Consecutive calls whose median shows how fast the machine is at the time."""

FIRST_SHARES = tuple(step / 20 for step in range(21))
"""Values to try for what the first head of a pattern costs more than a further head, as a share."""

SMOOTHINGS = 3
"""Rounds of taking the machine's speed out of the times."""


def fit(
    used: NDArray[np.float64], pooled: NDArray[np.bool_], measured: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Fit layers' times, by least relative squared error.

    Args:
        used: (layers, C), heads of each candidate.
        pooled: (C,), whether a candidate has pooled keys.
        measured: (layers,), seconds.

    Returns:
        What the first head of a pattern costs more than a further head, as a share: the least of
        `FIRST_SHARES` that fits nearly as well as the best. And (2 + C) seconds, never negative: of
        a layer, of pooling in it, and of a head of each candidate.
    """
    from scipy.optimize import nnls

    fits = []
    for first in FIRST_SHARES:
        rows = design(used, pooled, first) / measured[:, None]
        times, residual = nnls(rows, np.ones(len(measured)))
        fits.append((residual, first, times))
    enough = 1.05 * min(residual for residual, _, _ in fits) + 1e-9
    return next((first, times) for residual, first, times in fits if residual <= enough)


def design(
    used: NDArray[np.float64], pooled: NDArray[np.bool_], first: float
) -> NDArray[np.float64]:
    """The matrix whose product with the times of `fit` is each layer's time: (layers, 2 + C)."""
    pools = used[:, pooled].any(axis=1)
    return np.column_stack([np.ones(len(used)), pools, used + first * (used > 0)])


def typical_times(rounds: NDArray[np.float64], orders: NDArray[np.int64]) -> NDArray[np.float64]:
    """Typical seconds of calls that were timed in rounds on a machine of changing speed.

    Every round has an order of its own. How slow the machine is at a moment follows from the calls
    around it: the median of their times, each divided by its call's typical time.

    Args:
        rounds: (rounds, calls), seconds in the order in which they were measured.
        orders: (rounds, calls), index of the call that each time is of.

    Returns:
        (calls,), at the median speed of the machine.
    """
    from scipy.ndimage import median_filter

    slowness = np.ones(rounds.size)
    for _ in range(SMOOTHINGS):
        even = np.empty_like(rounds)
        np.put_along_axis(even, orders, rounds / slowness.reshape(rounds.shape), axis=1)
        typical = np.median(even, axis=0)
        slowness = median_filter((rounds / typical[orders]).ravel(), NEIGHBOURS, mode="nearest")
        slowness /= np.median(slowness)
    return np.asarray(typical)
