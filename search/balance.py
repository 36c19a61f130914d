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
"""Plans that are verified at most."""

USUAL_OFFSET_DB = 16.0
"""Decibels of pixels over those of latents, until the first verified plan tells."""

CLOSE_DB = 0.35
"""A plan this little above the target is not pushed further."""


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


def decibels(problem: Problem, choice: Choice) -> float:
    """Predicted signal-to-noise ratio of a choice, up to a constant."""
    return -10 * float(np.log10(max(problem.error(choice), 1e-12)))


def balance(
    problem: Problem,
    target: Target,
    verify: Callable[[Choice], dict[str, Any]],
    densities: Problem,
    trust_costs: bool,
) -> tuple[Tried, list[Tried], bool]:
    """Verify plans until one meets the target with little to spare.

    Args:
        problem: errors and seconds.
        target: what to reach.
        verify: runs the plan of a choice; gives `psnr_db` and `speedup`.
        densities: the same problem with shares of dense attention in place of seconds.
        trust_costs: take predicted speed as true, so that the result does not depend on timing.

    Returns:
        The best plan tried, all in order, and whether the target holds.
    """
    tried: list[Tried] = []

    def attempt(choice: Choice) -> Tried:
        seconds = problem.seconds(choice)
        one = Tried(choice, seconds, decibels(problem, choice), verify(choice))
        tried.append(one)
        return one

    dense = float(problem.dense.sum())
    if target.kind == "density":
        one = attempt(solve(densities, target.value * float(densities.dense.sum())))
        return one, tried, True
    if target.kind == "speedup":
        return _for_speed(problem, target.value, dense, attempt, tried, trust_costs)
    return _for_quality(problem, target.value, dense, attempt, tried)


def _between(fails: Tried, holds: Tried, aim: float) -> float:
    """Seconds at which quality is expected to be `aim`, between two verified plans."""
    low, high = fails.found["psnr_db"], holds.found["psnr_db"]
    share = float(np.clip((aim - low) / max(high - low, 1e-6), 0.1, 0.9))
    return fails.seconds + share * (holds.seconds - fails.seconds)


def _for_speed(
    problem: Problem,
    wanted: float,
    dense: float,
    attempt: Callable[[Choice], Tried],
    tried: list[Tried],
    trust_costs: bool,
) -> tuple[Tried, list[Tried], bool]:
    budget = dense / wanted
    least = min(problem.seconds(choice) for choice in frontier(problem))
    for _ in range(TRIES):
        one = attempt(solve(problem, max(budget, least)))
        reached = dense / one.seconds if trust_costs else one.found["speedup"]
        if reached >= wanted * (1 - 1e-9):
            return one, tried, True
        if budget <= least:
            break
        budget *= 0.99 * reached / wanted
    return max(tried, key=lambda one: one.found["speedup"]), tried, False


def _for_quality(
    problem: Problem,
    wanted: float,
    dense: float,
    attempt: Callable[[Choice], Tried],
    tried: list[Tried],
) -> tuple[Tried, list[Tried], bool]:
    curve = sorted(
        (problem.seconds(choice), decibels(problem, choice)) for choice in frontier(problem)
    )
    times, levels = np.array(curve).T
    levels = np.maximum.accumulate(levels)
    cheapest = float(times[0])
    fails: Tried | None = None
    holds: Tried | None = None
    offset = USUAL_OFFSET_DB
    for number in range(TRIES):
        aim = wanted + (CLOSE_DB / 2 if number else 0.0)
        if fails and holds:
            budget = _between(fails, holds, aim)
        else:
            budget = float(np.interp(aim - offset, levels, times))
        one = attempt(solve(problem, max(budget, cheapest)))
        found = one.found["psnr_db"]
        offset = found - one.decibels
        if found < wanted and (fails is None or one.seconds > fails.seconds):
            fails = one
        if found >= wanted and (holds is None or one.seconds < holds.seconds):
            holds = one
        near = fails and holds and holds.seconds - fails.seconds < 0.005 * dense
        done = found >= wanted and one.seconds <= 1.001 * cheapest  # nothing is faster
        if 0 <= found - wanted <= CLOSE_DB or near or done:
            break
    met = [one for one in tried if one.found["psnr_db"] >= wanted and one.seconds < dense]
    if met:
        return min(met, key=lambda one: one.seconds), tried, True
    return max(tried, key=lambda one: one.found["psnr_db"]), tried, False
