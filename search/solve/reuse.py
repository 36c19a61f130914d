"""Which steps to reuse: the error of every choice from recorded outputs, the best at a price.

A reused output differs from the output that the transformer would have computed by a combination of
recorded changes from step to step. So inner products of those changes are all that is needed for
the error of any choice, and for the slopes that fit best.

Where another transformer takes over, it has no earlier output: its first step is always computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ajour.schedule import PAST, STEEPEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MOST_IN_A_ROW = 4
"""Bound of reused steps between two computed steps."""

History = tuple[int, ...]
"""The last computed steps, at most `PAST` of them, the latest first."""


class Gap(NamedTuple):
    """Neighbouring reused steps.

    Attributes:
        start: the first of them.
        length: how many there are.
        slopes: that fit best, see `Phase`.
        error: squared error that they add to the latents, over the variance of the final latents.
    """

    start: int
    length: int
    slopes: tuple[float, ...]
    error: float


@dataclass(frozen=True, eq=False)
class Changes:
    """How a transformer's output changes over the steps of a run.

    Attributes:
        products: (steps, steps), inner products of the changes of the output, guidance included,
            from each step's predecessor to the step, over the variance of the final latents. The
            first row and column are 0.
        noise_levels: of the steps.
        cuts: the steps in which the next transformer takes over.
    """

    products: NDArray[np.float64]
    noise_levels: tuple[float, ...]
    cuts: tuple[int, ...] = ()

    @cached_property
    def widths(self) -> NDArray[np.float64]:
        """Distance in noise level from each step to the next: what the latents move by."""
        return -np.diff(np.array([*self.noise_levels, 0.0]))

    def gap(self, history: History, length: int) -> Gap:
        """The error of reusing the steps after the last computed step, with the best slopes.

        Args:
            history: the last computed steps.
            length: number of reused steps.
        """
        last = history[0]
        steps = range(last + 1, last + 1 + length)
        levels, widths = np.array(self.noise_levels), self.widths
        # Coefficients of the changes: of the sum over the steps of width * (output - last output).
        missed = np.zeros(len(levels))
        for step in steps:
            missed[last + 1 : step + 1] += widths[step]
        reach = sum(widths[step] * (levels[step] - levels[last]) for step in steps)
        rates = np.zeros((len(history) - 1, len(levels)))
        for row, (end, start) in enumerate(zip(history, history[1:], strict=False)):
            rates[row, start + 1 : end + 1] = reach / (levels[end] - levels[start])
        slopes = _best(rates @ self.products @ rates.T, rates @ self.products @ missed)
        rest = missed - slopes @ rates
        error = max(float(rest @ self.products @ rest), 0.0)
        return Gap(last + 1, length, tuple(round(float(x), 4) for x in slopes), error)

    @cached_property
    def gaps(self) -> dict[tuple[History, int], Gap]:
        """Every gap that a choice can have, by history and length."""
        return {
            (history, length): self.gap(history, length)
            for history in self._histories()
            for length in range(1, self._longest(history[0]) + 1)
        }

    def history(self, step: int) -> History:
        """The last computed steps before a step, if all were computed; empty if it has none."""
        first = max((cut for cut in self.cuts if cut <= step), default=0)
        return tuple(range(step - 1, max(step - PAST, first) - 1, -1))

    def _histories(self) -> list[History]:
        histories: list[History] = [(0,)]
        for history in histories:
            for length in range(self._longest(history[0]) + 1):
                if (step := history[0] + length + 1) < len(self.noise_levels):
                    longer = self._after(history, step)
                    if longer not in histories[-200:]:
                        histories.append(longer)
        return list(dict.fromkeys(histories))

    def _longest(self, step: int) -> int:
        """Most steps that can be reused after a computed step."""
        end = min((cut for cut in self.cuts if cut > step), default=len(self.noise_levels))
        return min(MOST_IN_A_ROW, end - 1 - step)

    def _after(self, history: History, step: int) -> History:
        """The history once a further step is computed."""
        return (step,) if step in self.cuts else (step, *history)[:PAST]

    def best(
        self, seconds: Sequence[float], price: float, gains: Sequence[float]
    ) -> tuple[Gap, ...]:
        """The gaps of least error + price * seconds of the computed steps.

        Args:
            seconds: of each step if it is computed.
            price: error that a second is worth.
            gains: how much an error in each step grows until the end of the run.
        """
        steps = len(self.noise_levels)
        costs: dict[History, tuple[float, tuple[Gap, ...]]] = {(0,): (price * seconds[0], ())}
        done: list[tuple[float, tuple[Gap, ...]]] = []
        for step in range(steps):
            for history in [history for history in costs if history[0] == step]:
                cost, chosen = costs.pop(history)
                for length in range(self._longest(step) + 1):
                    total, gaps = cost, chosen
                    if length:
                        gap = self.gaps[history, length]
                        total, gaps = total + gains[gap.start] * gap.error, (*chosen, gap)
                    following = step + length + 1
                    if following == steps:
                        done.append((total, gaps))
                        continue
                    total += price * seconds[following]
                    longer = self._after(history, following)
                    if longer not in costs or total < costs[longer][0]:
                        costs[longer] = total, gaps
        return min(done, key=lambda entry: entry[0])[1]


def _best(products: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slopes of least squares, moderate in size: with fewer of them if need be."""
    for count in range(len(targets), 0, -1):
        part = products[:count, :count] + 1e-9 * np.eye(count) * max(products.max(), 1e-30)
        slopes = np.linalg.solve(part, targets[:count])
        if np.isfinite(slopes).all() and np.abs(slopes).max() <= STEEPEST:
            return np.append(slopes, np.zeros(len(targets) - count))
    return np.zeros(len(targets))
