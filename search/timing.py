"""Timing layers of the operator, whatever mix of patterns their heads have, and fitting the times.

A layer's call costs a fixed time plus a time per head that depends on the head's pattern. Where a
backend works pattern by pattern, the first head of a pattern costs more than further ones. All of
it is fitted to layers of one pattern and to random mixes; other mixes tell how far the fit is off.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from ajour.capture import levels_by_chance
from ajour.lowering import lower
from ajour.ops import attention
from ajour.patterns import Captured

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.patterns import Pattern
    from ajour.prologue import Prologue
    from ajour.table import BlockTable

HELD_OUT = 12
"""Random mixes that the model is judged on."""

ROUNDS = 5
"""Timings of every layer, in turns."""

NEIGHBOURS = 15
"""Calls, one after the other, that tell how fast the machine is at the time."""

FIRST_SHARES = tuple(step / 20 for step in range(21))
"""Tried values of what the first head of a pattern costs beyond a further one."""

SMOOTHINGS = 3
"""Rounds of taking the machine's speed out of the times."""


@dataclass(frozen=True)
class AttentionCall:
    """What a layer gives the operator, but for the table.

    Args:
        q: (batch, tokens, heads, head_dim).
        k: same shape.
        v: same shape.
        grid: their grid.
        prologue: what q and k have not been through yet.
    """

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    grid: TokenGrid
    prologue: Prologue | None = None


@dataclass(frozen=True)
class LayerCosts:
    """What `time_layers` fits: fields as of `Costs`."""

    heads: tuple[float, ...]
    first: float
    layer: float
    held_out: tuple[tuple[float, float], ...]


def time_layers(
    candidates: Sequence[Pattern],
    calls: Sequence[AttentionCall],
    backend: str | None = None,
    rounds: int = ROUNDS,
) -> LayerCosts:
    """Time layers of one candidate and of random mixes, and fit the model.

    Args:
        candidates: the patterns, C of them.
        calls: the operator's calls in a layer: one, or one per sample of a batch.
        backend: the operator's backend; None chooses.
        rounds: timings of each layer, in turns.

    Returns:
        The fit. Its times are never negative.
    """
    rng = np.random.default_rng(0)
    count, heads, device = len(candidates), calls[0].q.shape[2], calls[0].q.device
    rows = [[index] * heads for index in range(count)]
    rows += rng.integers(0, count, (count + HELD_OUT, heads)).tolist()
    tables = []
    for call in calls:
        shared = _one_head_each(candidates, call.grid).to(device)
        own = shared.head_rows.tolist()
        tables.append([shared.with_heads([own[index] for index in row]) for row in rows])

    def layer(number: int) -> None:
        for call, own in zip(calls, tables, strict=True):
            attention(
                call.q, call.k, call.v, own[number], prologue=call.prologue, backend=backend
            )  # fmt: skip

    orders = np.array([rng.permutation(len(rows)) for _ in range(rounds + 1)])
    bar = tqdm(orders, desc="time", unit="round", disable=None)
    turns = np.array([[seconds(partial(layer, index), device) for index in order] for order in bar])
    # The first round compiles and warms up.
    measured = typical_times(turns[1:], orders[1:])
    used = np.array([np.bincount(row, minlength=count) for row in rows], dtype=float)
    fitted = len(rows) - HELD_OUT
    first, found = fit(used[:fitted], measured[:fitted])
    predicted = _design(used[fitted:], first) @ found
    return LayerCosts(
        heads=tuple(found[1:].tolist()),
        first=first,
        layer=float(found[0]),
        held_out=tuple(zip(predicted.tolist(), measured[fitted:].tolist(), strict=True)),
    )


def fit(
    used: NDArray[np.float64], measured: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Fit layers' times, of least relative squared error.

    Args:
        used: (layers, C), heads of each candidate.
        measured: (layers,), seconds.

    Returns:
        What the first head of a pattern costs beyond a further one, as a share of it: the least of
        `FIRST_SHARES` that is nearly as good as any; and the seconds of a layer and of a head of
        each candidate, 1 + C of them, never negative.
    """
    from scipy.optimize import nnls

    found = []
    for first in FIRST_SHARES:
        times, residual = nnls(_design(used, first) / measured[:, None], np.ones(len(measured)))
        found.append((residual, first, times))
    enough = 1.05 * min(residual for residual, _, _ in found) + 1e-9
    return next((first, times) for residual, first, times in found if residual <= enough)


def _design(used: NDArray[np.float64], first: float) -> NDArray[np.float64]:
    """What a layer's fixed time and each candidate's are multiplied by."""
    return np.hstack([np.ones((len(used), 1)), used + first * (used > 0)])


def typical_times(turns: NDArray[np.float64], orders: NDArray[np.int64]) -> NDArray[np.float64]:
    """Typical seconds of calls that were timed in turns on a machine of changing speed.

    Each round has its own random order. How slow the machine is at a moment is then told by the
    calls around it: the median of their times, each over its own typical time.

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


def _one_head_each(candidates: Sequence[Pattern], grid: TokenGrid) -> BlockTable:
    """A table with a head per candidate; captured maps are of random importance."""
    table = lower(candidates, grid)
    for index, pattern in enumerate(candidates):
        if isinstance(pattern, Captured):
            levels = levels_by_chance(pattern, grid)
            table = table.with_rows(levels, torch.tensor([index]), max(pattern.levels))
    return table


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call, all of a GPU's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
