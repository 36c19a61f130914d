"""Finding the budget: plans are solved, verified and adjusted until the target holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.search.solve import frontier, solve

if TYPE_CHECKING:
    from collections.abc import Callable

    from ajour.search.settings import Target
    from ajour.search.solve import Choice, Problem

TRIES = 5
"""Plans that are verified, or only timed, at most."""

USUAL_OFFSET_DB = 19.0
"""Decibels of pixels over those of latents, until the first verified plan tells: the bundled
model's, as is the slope."""

USUAL_SLOPE = 0.9
"""Decibels that a video gains per predicted one, until two verified plans tell."""

SLOPES = (0.3, 3.0)
"""The least and the most that a slope told by two plans is believed to be."""

CLOSE_DB = 0.5
"""A plan this little above the target quality is not pushed further: plans of neighbouring budgets
differ by as much, either way, and the time to be won is about a hundredth."""

CLOSE_TIME = 0.01
"""Plans this close to each other, in dense runs, are not told apart further."""

CLOSE_SPEED = 0.03
"""A plan this little above the target speed, as a share of it, is not slowed down further."""


@dataclass(frozen=True)
class Tried:
    """One verified plan.

    Attributes:
        choice: what it assigns.
        seconds: predicted for a run.
        decibels: predicted, before the verification corrects the scale.
        found: what verification measured; `speedup` decides for a target of speed.
    """

    choice: Choice
    seconds: float
    decibels: float
    found: dict[str, Any]

    @property
    def facts(self) -> dict[str, Any]:
        """What was predicted and what was found, as JSON."""
        return {"seconds": self.seconds, "decibels": self.decibels} | self.found


def decibels(problem: Problem, choice: Choice) -> float:
    """Predicted signal-to-noise ratio of a choice, up to a constant."""
    return -10 * float(np.log10(max(problem.error(choice), 1e-12)))


def balance(
    problem: Problem,
    target: Target,
    verify: Callable[[Choice], dict[str, Any]],
    clock: Callable[[Choice], float],
    densities: Problem,
) -> tuple[Tried, list[Tried], bool]:
    """Time or verify plans until one meets the target with little to spare.

    Args:
        problem: errors and seconds.
        target: what to reach.
        verify: runs the plan of a choice; gives `psnr_db` and `speedup`.
        clock: gives the speed-up of a choice's plan, which takes less time than to verify it.
        densities: the same problem with shares of dense attention in place of seconds.

    Returns:
        The best plan tried, all verified ones in order, and whether the target holds.
    """
    tried: list[Tried] = []

    def attempt(choice: Choice) -> Tried:
        seconds = problem.seconds(choice)
        one = Tried(choice, seconds, decibels(problem, choice), verify(choice))
        tried.append(one)
        return one

    if target.kind == "density":
        one = attempt(solve(densities, target.value * float(densities.dense.sum())))
        return one, tried, True
    if target.kind == "speedup":
        choice, met = _for_speed(problem, target.value, clock)
        return attempt(choice), tried, met
    return _for_quality(problem, target.value, attempt, tried)


def _for_speed(
    problem: Problem, wanted: float, clock: Callable[[Choice], float]
) -> tuple[Choice, bool]:
    """The slowest choice timed that has the speed, or the fastest; and whether it has it."""
    dense = float(problem.dense.sum())
    least = min(problem.seconds(choice) for choice in frontier(problem))
    aim = (1 + CLOSE_SPEED / 2) * wanted
    budget = dense / wanted
    timed: list[tuple[float, float, Choice]] = []
    for _ in range(TRIES):
        choice = solve(problem, max(budget, least))
        timed.append((clock(choice), problem.seconds(choice), choice))
        holds = [(seconds, speed) for speed, seconds, _ in timed if speed >= wanted]
        fails = [(seconds, speed) for speed, seconds, _ in timed if speed < wanted]
        if holds and (max(holds)[1] <= (1 + CLOSE_SPEED) * wanted or max(holds)[0] >= dense):
            break
        if holds and fails and max(holds)[0] < min(fails)[0]:
            (low, fast), (high, slow) = max(holds), min(fails)
            share = (1 / aim - 1 / fast) / (1 / slow - 1 / fast)  # of the way in time
            budget = low + float(np.clip(share, 0.1, 0.9)) * (high - low)
        elif budget <= least:
            break
        else:
            speed, seconds, _ = timed[-1]
            budget = seconds * speed / aim
    reached = [one for one in timed if one[0] >= wanted * (1 - 1e-9)]
    best = max(reached, key=lambda one: one[1]) if reached else max(timed, key=lambda one: one[0])
    return best[2], bool(reached)


def _for_quality(
    problem: Problem, wanted: float, attempt: Callable[[Choice], Tried], tried: list[Tried]
) -> tuple[Tried, list[Tried], bool]:
    dense = float(problem.dense.sum())
    curve = sorted(
        (problem.seconds(choice), decibels(problem, choice)) for choice in frontier(problem)
    )
    times, levels = np.array(curve).T
    levels = np.maximum.accumulate(levels)
    cheapest = float(times[0])
    aim = wanted + CLOSE_DB / 2
    level = (aim - USUAL_OFFSET_DB) / USUAL_SLOPE
    fails: Tried | None = None
    holds: Tried | None = None
    for _ in range(TRIES):
        if fails and holds:
            level = _between(fails, holds, aim)
        budget = float(np.interp(level, levels, times))
        one = attempt(solve(problem, max(budget, cheapest)))
        found = one.found["psnr_db"]
        level = one.decibels + (aim - found) / _slope(tried)
        if found < wanted and (fails is None or one.seconds > fails.seconds):
            fails = one
        if found >= wanted and (holds is None or one.seconds < holds.seconds):
            holds = one
        near = fails and holds and holds.seconds - fails.seconds < CLOSE_TIME * dense
        done = found >= wanted and one.seconds <= 1.001 * cheapest  # nothing is faster
        if 0 <= found - wanted <= CLOSE_DB or near or done:
            break
    met = [one for one in tried if one.found["psnr_db"] >= wanted and one.seconds < dense]
    if met:
        return min(met, key=lambda one: one.seconds), tried, True
    return max(tried, key=lambda one: one.found["psnr_db"]), tried, False


def _slope(tried: list[Tried]) -> float:
    """Decibels that a video gains per predicted one, told by the last two verified plans."""
    if len(tried) < 2:
        return USUAL_SLOPE
    before, last = tried[-2:]
    gain = last.decibels - before.decibels
    if abs(gain) < 0.1:
        return USUAL_SLOPE
    return float(np.clip((last.found["psnr_db"] - before.found["psnr_db"]) / gain, *SLOPES))


def _between(fails: Tried, holds: Tried, aim: float) -> float:
    """Predicted decibels at which quality is expected to be `aim`, between two verified plans."""
    low, high = fails.found["psnr_db"], holds.found["psnr_db"]
    share = float(np.clip((aim - low) / max(high - low, 1e-6), 0.1, 0.9))
    return fails.decibels + share * (holds.decibels - fails.decibels)
