"""Finding the budget: plans are solved, verified and adjusted until the target holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.search.solve import frontier, solve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ajour.search.settings import Target
    from ajour.search.solve import Choice, Problem

TRIES = 5
"""Plans that are verified, or only timed, at most."""

USUAL_OFFSET_DB = 18.3
"""Decibels of pixels over those of latents, until the first verified plan tells: the bundled
model's, as is the slope."""

USUAL_SLOPE, SLOPE_SPREAD = 0.9, 0.5
"""Decibels that a video gains per predicted one, and by how much models differ in it."""

LEAST_SLOPE = 0.3
"""The least slope that verified plans are believed to tell."""

SCATTER_DB = 0.45
"""Plans of neighbouring budgets differ by as much from what is predicted of them, either way."""

BEND = 0.2
"""What a verified plan tells is less exact by this share of its distance from the aim."""

CLOSE_DB = 0.75
"""The first plan is left as it is if it is this little above the target quality, the second if it
is twice as much, and so on: half of it is within the scatter, and what a further plan would win is
a hundredth or two of the time."""

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
        found: what verification measured.
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
    verify: Callable[[Choice], Tried],
    clock: Callable[[Choice], float],
    densities: Problem,
) -> tuple[Tried, list[Tried], bool]:
    """Time or verify plans until one meets the target with little to spare.

    Args:
        problem: errors and seconds.
        target: what to reach.
        verify: runs the plan of a choice; what it finds has `psnr_db`.
        clock: gives the speed-up of a choice's plan, which takes less time than to verify it.
        densities: the same problem with shares of dense attention in place of seconds.

    Returns:
        The best plan tried, all verified ones in order, and whether the target holds.
    """
    if target.kind == "density":
        one = verify(solve(densities, target.value * float(densities.dense.sum())))
        return one, [one], True
    if target.kind == "speedup":
        choice, met = _for_speed(problem, target.value, clock)
        one = verify(choice)
        return one, [one], met
    return _for_quality(problem, target, verify)


def best_of(tried: Sequence[Tried], target: Target) -> Tried:
    """The plan that meets a target best; where none does, the one that comes nearest.

    Of plans that have a quality the one predicted to be the fastest: not all of them are timed
    alike.
    """
    good = [one for one in tried if meets(one, target)]
    if target.kind == "psnr" and good:
        return min(good, key=lambda one: (one.seconds, -one.found["psnr_db"]))
    if target.kind == "speedup" and not good:
        return max(tried, key=lambda one: (one.found["speedup"], one.found["psnr_db"]))
    return max(good or tried, key=lambda one: one.found["psnr_db"])


def meets(one: Tried, target: Target) -> bool:
    """Whether a verified plan has what a target asks for; one of density always has."""
    if target.kind == "density":
        return True
    return bool(one.found["psnr_db" if target.kind == "psnr" else "speedup"] >= target.value)


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
    problem: Problem, target: Target, verify: Callable[[Choice], Tried]
) -> tuple[Tried, list[Tried], bool]:
    wanted = target.value
    dense = float(problem.dense.sum())
    curve = sorted(
        (problem.seconds(choice), decibels(problem, choice)) for choice in frontier(problem)
    )
    times, levels = np.array(curve).T
    levels = np.maximum.accumulate(levels)
    level = (wanted + CLOSE_DB / 2 - USUAL_OFFSET_DB) / USUAL_SLOPE
    fails: Tried | None = None
    holds: Tried | None = None
    tried: list[Tried] = []
    for _ in range(TRIES):
        budget = float(np.interp(level, levels, times))
        choice = _fresh(problem, budget, wanted, tried, times)
        if choice is None:
            break
        one = verify(choice)
        tried.append(one)
        found = one.found["psnr_db"]
        if found < wanted and (fails is None or one.seconds > fails.seconds):
            fails = one
        if found >= wanted and (holds is None or one.seconds < holds.seconds):
            holds = one
        near = fails and holds and holds.seconds - fails.seconds < CLOSE_TIME * dense
        done = found >= wanted and one.seconds <= 1.001 * times[0]  # nothing is faster
        if 0 <= found - wanted <= CLOSE_DB * len(tried) or near or done:
            break
        level = expected_level(tried, wanted + CLOSE_DB * (len(tried) + 1) / 2)
        if fails and holds:
            inside = np.quantile([fails.decibels, holds.decibels], [0.1, 0.9])
            level = float(np.clip(level, *inside))
    best = best_of(tried, target)
    return best, tried, meets(best, target) and best.seconds < dense


def _fresh(
    problem: Problem,
    budget: float,
    wanted: float,
    tried: Sequence[Tried],
    times: NDArray[np.float64],
) -> Choice | None:
    """The choice of a budget; the frontier's next one where it was verified; None if both were."""
    known = {one.choice.tobytes() for one in tried}
    choice = solve(problem, budget)
    if choice.tobytes() not in known:
        return choice
    last = tried[-1]
    if last.found["psnr_db"] < wanted:
        others = times[(times > 1.001 * last.seconds) & (times < 0.999 * problem.dense.sum())][:1]
    else:
        others = times[times < 0.999 * last.seconds][-1:]
    if not len(others):
        return None
    choice = solve(problem, 1.0001 * float(others[0]))
    return None if choice.tobytes() in known else choice


def expected_level(tried: Sequence[Tried], aim: float) -> float:
    """Predicted decibels at which quality is expected to be `aim` in truth.

    A line through the verified plans, those near the aim counting most; its slope is the usual one
    unless plans that are far enough apart tell another.

    Args:
        tried: verified plans, one at least.
        aim: PSNR in dB.
    """
    predicted = np.array([one.decibels for one in tried])
    found = np.array([one.found["psnr_db"] for one in tried])
    weights = 1 / (SCATTER_DB**2 + (BEND * (found - aim)) ** 2)
    at, height = (np.average(values, weights=weights) for values in (predicted, found))
    apart, prior = predicted - at, 1 / SLOPE_SPREAD**2
    slope = (prior * USUAL_SLOPE + np.sum(weights * apart * (found - height))) / (
        prior + np.sum(weights * apart**2)
    )
    return float(at + (aim - height) / max(slope, LEAST_SLOPE))
