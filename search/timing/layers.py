"""Measuring the cost model: layers of one pattern and of random mixes, timed in whole passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ajour.lowering import pools
from ajour.patterns import Skip
from ajour.plan import Plan
from ajour.schedule import DENSE, Phase, Schedule
from ajour.search.timing.costs import Costs, conditions
from ajour.search.timing.fit import design, fit, typical_times
from ajour.search.timing.passes import ROUNDS, time_passes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.patterns import Pattern
    from ajour.search.setup import Setup

HELD_OUT = 12
"""Layers of random mixes that the model is judged on."""

SKIPPED = "skipped"
"""Name of the timed passes in which the operator skips all heads."""


def measure_costs(
    setup: Setup, candidates: Mapping[str, Pattern], grid: TokenGrid, passes: int, prompt: str
) -> Costs:
    """Time passes whose layers have one pattern or a random mix, and fit the cost model.

    Every layer is timed where it runs: with its real inputs, after the layers before it. Any
    prompt will do.
    """
    model, names = setup.model, list(candidates)
    layers, heads = model["layers"], model["heads"]
    rows = layer_rows(len(names), layers, heads)
    places = np.random.default_rng(1).permutation(len(rows)).reshape(-1, layers)
    assignments = {
        f"mix-{number}": tuple(tuple(names[index] for index in row) for row in rows[place])
        for number, place in enumerate(places)
    }
    rows_of = dict(zip(assignments, places, strict=True))
    assignments[SKIPPED] = ((SKIPPED,) * heads,) * layers
    patterns = dict(candidates) | {SKIPPED: Skip()}
    plan = Plan(model, patterns, assignments, Schedule((Phase(1.0, SKIPPED),)))
    times = time_passes(setup, plan, prompt, ROUNDS)
    orders = np.array(
        [np.concatenate([rows_of[n] for n in order if n in rows_of]) for order in times.orders]
    )
    seconds = np.empty(orders.shape)  # of each row, by round
    for name, place in rows_of.items():
        seconds[:, place] = times.layers[name]
    measured = typical_times(np.take_along_axis(seconds, orders, axis=1), orders)
    used = np.array([np.bincount(row, minlength=len(names)) for row in rows], dtype=float)
    pooled = np.array([pools(pattern, grid) for pattern in candidates.values()])
    first, fitted = fit(used[:-HELD_OUT], pooled, measured[:-HELD_OUT])
    predicted = design(used[-HELD_OUT:], pooled, first) @ fitted
    other = np.array(times.passes[SKIPPED]) - times.layers[SKIPPED].sum(axis=1)
    return Costs(
        names=tuple(names),
        heads=tuple(fitted[2:].tolist()),
        pooled=tuple(pooled.tolist()),
        layer=float(fitted[0]),
        pooling=float(fitted[1]),
        dense_pass=float(np.median(times.passes[DENSE])),
        other=max(0.0, float(np.median(other))),
        passes=passes,
        first=first,
        held_out=tuple(zip(predicted.tolist(), measured[-HELD_OUT:].tolist(), strict=True)),
        conditions=conditions(setup, grid),
    )


def layer_rows(candidates: int, layers: int, heads: int) -> NDArray[np.int64]:
    """The layers to time: one of each candidate alone, then at least as many random mixes.

    Returns (n, heads), index of each head's candidate; n is a multiple of `layers`. The last
    `HELD_OUT` are for judging the fit.
    """
    alone = np.repeat(np.arange(candidates)[:, None], heads, axis=1)
    count = -(-(2 * candidates + HELD_OUT) // layers) * layers - candidates
    mixed = np.random.default_rng(0).integers(0, candidates, (count, heads))
    return np.concatenate([alone, mixed])
