"""One budget for sparse heads and reused steps: a knapsack for each way of reusing steps.

Which steps are reused decides how often each band is computed, and so what its heads cost; errors
of heads and of reused steps add up. The ways worth trying are those that are best at some price of
time; each of them leaves a knapsack over the heads.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ajour.search.solve import knapsack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from ajour.search.bands import Bands
    from ajour.search.solve.problem import Choice, Problem
    from ajour.search.solve.reuse import Changes, Gap

PRICES = 192
"""Prices of time that heads are chosen at; reused steps are chosen at every fourth."""

SOLVED = 2
"""Ways of reusing steps whose knapsack is solved exactly for a budget, the most promising ones."""


class RunChoice(NamedTuple):
    """What every step of a run does.

    Attributes:
        heads: the candidate of every head by band, `DENSE_BAND` throughout a dense band.
        gaps: the reused steps.
    """

    heads: Choice
    gaps: tuple[Gap, ...] = ()

    @property
    def key(self) -> tuple[bytes, tuple[int, ...]]:
        """Equal for equal choices."""
        return self.heads.tobytes(), reused_steps(self.gaps)


class RunProblem:
    """What a search chooses from: `RunChoice`s.

    Args:
        build: makes the knapsack over the heads, given how many steps of each band are computed.
        bands: of the run.
        changes: of the transformer's output; None to compute every step.
        gains: how much an error in the output of each step grows until the end of the run.
        gaps: ways of reusing steps to choose from; found at a range of prices if None.
    """

    def __init__(
        self,
        build: Callable[[NDArray[np.float64]], Problem],
        bands: Bands,
        changes: Changes | None = None,
        gains: NDArray[np.float64] | None = None,
        gaps: Iterable[tuple[Gap, ...]] | None = None,
    ) -> None:
        self.bands = bands
        self._build = build
        self._gains = np.ones(len(bands.noise_levels)) if gains is None else gains
        self.computed = build(self._computed_steps(()))
        if gaps is None:
            gaps = self._ways(changes) if changes is not None else ()
        self._problems: dict[tuple[Gap, ...], Problem] = {(): self.computed}
        for way in gaps:
            self._problems[way] = build(self._computed_steps(way))

    @property
    def ways(self) -> tuple[tuple[Gap, ...], ...]:
        """The ways of reusing steps, the first without any."""
        return tuple(self._problems)

    def problem(self, way: tuple[Gap, ...]) -> Problem:
        """The knapsack over the heads that a way of reusing steps leaves."""
        return self._problems[way]

    @property
    def dense_seconds(self) -> float:
        """Seconds of a run that is dense throughout."""
        return self.computed.dense_seconds

    def seconds(self, choice: RunChoice) -> float:
        """Predicted seconds of a choice."""
        return self._problems[choice.gaps].seconds(choice.heads)

    def error(self, choice: RunChoice) -> float:
        """Predicted error of a choice."""
        return self.computed.error(choice.heads) + self.reuse_error(choice.gaps)

    def reuse_error(self, gaps: tuple[Gap, ...]) -> float:
        """Predicted error of reused steps."""
        return float(sum(self._gains[gap.start] * gap.error for gap in gaps))

    def band_errors(self, choice: RunChoice) -> NDArray[np.float64]:
        """Predicted error that each band adds: (bands,)."""
        errors = self.computed.band_errors(choice.heads)
        for gap in choice.gaps:
            errors[self.bands.of(gap.start)] += self.reuse_error((gap,))
        return errors

    def decibels(self, choice: RunChoice) -> float:
        """Predicted signal-to-noise ratio of a choice, up to a constant."""
        return -10 * float(np.log10(max(self.error(choice), 1e-12)))

    @cached_property
    def frontier(self) -> tuple[RunChoice, ...]:
        """The best choices, each faster and with more error than the one before."""
        points = sorted(
            (self.seconds(choice), self.error(choice), number)
            for number, choice in enumerate(self.candidates)
        )
        best: list[RunChoice] = []
        least = np.inf
        for _, error, number in points:
            if error < least:
                least = error
                best.append(self.candidates[number])
        return tuple(reversed(best))

    def solve(self, budget: float) -> RunChoice:
        """The choice of least error within a budget in the unit of the problem's costs.

        Raises:
            ValueError: if even the cheapest choice costs more than the budget.
        """
        within: dict[tuple[Gap, ...], float] = {}
        for choice in self.candidates:
            if self.seconds(choice) <= budget:
                error = self.error(choice)
                within[choice.gaps] = min(error, within.get(choice.gaps, np.inf))
        promising = sorted(within, key=lambda way: within[way])[:SOLVED]
        if not promising:  # raises, unless the budget lies between two prices
            promising = [min(self.ways, key=lambda way: knapsack.least(self._problems[way]))]
        solved = [RunChoice(knapsack.solve(self._problems[way], budget), way) for way in promising]
        return min(solved, key=self.error)

    @cached_property
    def candidates(self) -> list[RunChoice]:
        """The choices of every way at every price that are faster than at any lower price.

        Bands do not depend on each other, and what a band chooses depends on how many of its steps
        are computed, not on which.
        """
        prices = knapsack.prices(self.computed, PRICES)
        longest = max(self.bands.lengths)
        at_count: list[list[Choice]] = []
        for count in range(longest + 1):
            problem = self._build(np.full(len(self.bands.lengths), float(count)))
            at_count.append([problem.at_price(price) for price in prices])
        candidates = []
        for way, problem in self._problems.items():
            counts = self._computed_steps(way).astype(int)
            fastest = np.inf
            for number in range(PRICES):
                rows = [at_count[count][number][band] for band, count in enumerate(counts)]
                heads = np.stack(rows)
                seconds = problem.seconds(heads)
                if seconds < fastest:
                    fastest = seconds
                    candidates.append(RunChoice(heads, way))
        return candidates

    def _computed_steps(self, way: tuple[Gap, ...]) -> NDArray[np.float64]:
        """How many steps of each band are computed: (bands,)."""
        lengths = np.array(self.bands.lengths, dtype=float)
        for step in reused_steps(way):
            lengths[self.bands.of(step)] -= 1
        return lengths

    def _ways(self, changes: Changes) -> list[tuple[Gap, ...]]:
        """Reused steps that are best at some price, if heads are as they are at that price."""
        ways: dict[tuple[Gap, ...], None] = {}
        for price in knapsack.prices(self.computed, PRICES // 4):
            seconds = self.computed.band_seconds(self.computed.at_price(price))
            each = seconds / np.array(self.bands.lengths)
            steps = [float(each[self.bands.of(step)]) for step in range(len(changes.noise_levels))]
            ways[changes.best(steps, price, self._gains.tolist())] = None
        return [way for way in ways if way]


def reused_steps(gaps: Iterable[Gap]) -> tuple[int, ...]:
    """The indices of the reused steps."""
    return tuple(step for gap in gaps for step in range(gap.start, gap.start + gap.length))
