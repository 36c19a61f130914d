"""Reaching a target: plans are solved, verified and adjusted until it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ajour.search.results import VerifiedPlan
    from ajour.search.settings import Target
    from ajour.search.solve.joint import RunChoice, RunProblem

TRIES = 5
"""Plans that are verified, or only timed, at most."""

USUAL_OFFSET_DB = 18.3
"""PSNR of videos minus predicted decibels, used until a plan was verified. Offset and slope were
measured on the bundled model."""

USUAL_SLOPE, SLOPE_SPREAD = 0.9, 0.5
"""PSNR gained per predicted decibel, and its standard deviation between models."""

LEAST_SLOPE = 0.3
"""Lower bound of the slope."""

LEAST_SPREAD_DB = 1.5
"""Verified plans correct the slope only if their predictions span at least so many decibels:
between closer plans, scatter is as large as the difference."""

SCATTER_DB = 0.45
"""Standard deviation of PSNR between plans of neighbouring budgets."""

BEND = 0.2
"""Further standard deviation of what a verified plan predicts, per decibel from the aim."""

CLOSE_DB = 0.75
"""The first plan is kept if its PSNR is at most this much above the target, the second if at most
twice as much, and so on. Half of it is scatter, and a further plan would save only a hundredth or
two of the time."""

CLOSE_TIME = 0.01
"""Plans whose times differ by less than this share of a dense run count as equally fast."""

CLOSE_SPEED = 0.03
"""A plan that exceeds the target speed-up by at most this share is kept."""


class TimedChoice(NamedTuple):
    """A choice whose passes were timed: measured speed-up and predicted seconds."""

    speedup: float
    seconds: float
    choice: RunChoice


def reach(
    target: Target,
    problem: RunProblem,
    densities: RunProblem,
    verify: Callable[[RunChoice], VerifiedPlan],
    measure_speedup: Callable[[RunChoice], float],
) -> tuple[VerifiedPlan, list[VerifiedPlan], bool]:
    """Time or verify plans until one meets the target with little to spare.

    Args:
        target: what to reach. Bounds count for a target quality while plans are adjusted, and for
            other targets only in the result.
        problem: errors and seconds.
        densities: the same problem with shares of dense attention in place of seconds.
        verify: runs the plan of a choice.
        measure_speedup: times the plan of a choice, which is faster than to verify it.

    Returns:
        The best plan, all verified plans in order, and whether the target holds.
    """
    if target.kind == "psnr":
        return _reach_quality(problem, target, verify)
    if target.kind == "density":
        choice, met = densities.solve(target.value * densities.dense_seconds), True
    else:
        choice, met = _reach_speed(problem, target.value, measure_speedup)
    plan = verify(choice)
    return plan, [plan], met and not target.bounds.missed(plan.quality)


def best_of(plans: Sequence[VerifiedPlan], target: Target) -> VerifiedPlan:
    """The plan that meets a target and its bounds best, or else the plan nearest to it.

    Of several plans with the target quality, the plan that is predicted to be the fastest: not all
    of them are timed in the same way.
    """
    good = [plan for plan in plans if meets(plan, target)]
    if target.kind == "psnr":
        if good:
            return min(good, key=lambda plan: (plan.seconds, -plan.psnr_db))
        return max(plans, key=lambda plan: quality_db(plan, target))
    near = good or [plan for plan in plans if _reaches(plan, target)]
    if near:
        return max(near, key=lambda plan: plan.psnr_db)
    return max(plans, key=lambda plan: (plan.speedup, plan.psnr_db))


def meets(plan: VerifiedPlan, target: Target) -> bool:
    """Whether a verified plan meets a target and holds its bounds."""
    return _reaches(plan, target) and not target.bounds.missed(plan.quality)


def _reaches(plan: VerifiedPlan, target: Target) -> bool:
    """Whether a plan meets a target, bounds aside; a target of density is met by construction."""
    if target.kind == "density":
        return True
    return (plan.psnr_db if target.kind == "psnr" else plan.speedup) >= target.value


def quality_db(plan: VerifiedPlan, target: Target) -> float:
    """PSNR of a plan, or less: at most as far above the target as the tightest bound has room."""
    return min(plan.psnr_db, target.value + target.bounds.margin_db(plan.quality))


def _reach_speed(
    problem: RunProblem, wanted: float, measure_speedup: Callable[[RunChoice], float]
) -> tuple[RunChoice, bool]:
    """The slowest timed choice that has the speed-up, or the fastest; and whether it has it."""
    dense = problem.dense_seconds
    least = min(problem.seconds(choice) for choice in problem.frontier)
    aim = (1 + CLOSE_SPEED / 2) * wanted
    budget = dense / wanted
    timed: list[TimedChoice] = []
    for _ in range(TRIES):
        choice = problem.solve(max(budget, least))
        timed.append(TimedChoice(measure_speedup(choice), problem.seconds(choice), choice))
        fast = [(plan.seconds, plan.speedup) for plan in timed if plan.speedup >= wanted]
        slow = [(plan.seconds, plan.speedup) for plan in timed if plan.speedup < wanted]
        if fast and (max(fast)[1] <= (1 + CLOSE_SPEED) * wanted or max(fast)[0] >= dense):
            break
        if fast and slow and max(fast)[0] < min(slow)[0]:
            (low, fast_speedup), (high, slow_speedup) = max(fast), min(slow)
            share = (1 / aim - 1 / fast_speedup) / (1 / slow_speedup - 1 / fast_speedup)
            budget = low + float(np.clip(share, 0.1, 0.9)) * (high - low)
        elif budget <= least:
            break
        else:
            budget = timed[-1].seconds * timed[-1].speedup / aim
    reached = [plan for plan in timed if plan.speedup >= wanted * (1 - 1e-9)]
    if reached:
        return max(reached, key=lambda plan: plan.seconds).choice, True
    return max(timed, key=lambda plan: plan.speedup).choice, False


def _reach_quality(
    problem: RunProblem, target: Target, verify: Callable[[RunChoice], VerifiedPlan]
) -> tuple[VerifiedPlan, list[VerifiedPlan], bool]:
    wanted, dense = target.value, problem.dense_seconds
    curve = sorted((problem.seconds(c), problem.decibels(c)) for c in problem.frontier)
    times, levels = np.array(curve).T
    levels = np.maximum.accumulate(levels)
    level = (wanted + CLOSE_DB / 2 - USUAL_OFFSET_DB) / USUAL_SLOPE
    plans: list[VerifiedPlan] = []
    for _ in range(TRIES):
        budget = float(np.interp(level, levels, times))
        choice = _new_choice(problem, budget, plans, target, times)
        if choice is None:
            break
        plan = verify(choice)
        plans.append(plan)
        excess = quality_db(plan, target) - wanted
        if 0 <= excess <= CLOSE_DB * len(plans):
            break
        if excess >= 0 and plan.seconds <= 1.001 * times[0]:  # nothing is faster
            break
        points = [(plan.decibels, quality_db(plan, target)) for plan in plans]
        level = expected_level(points, wanted + CLOSE_DB * (len(plans) + 1) / 2)
        misses = [plan for plan in plans if not meets(plan, target)]
        hits = [plan for plan in plans if meets(plan, target)]
        if misses and hits:
            slowest_miss = max(misses, key=lambda plan: plan.seconds)
            fastest_hit = min(hits, key=lambda plan: plan.seconds)
            if fastest_hit.seconds - slowest_miss.seconds < CLOSE_TIME * dense:
                break
            between = np.quantile([slowest_miss.decibels, fastest_hit.decibels], [0.1, 0.9])
            level = float(np.clip(level, *between))
    best = best_of(plans, target)
    return best, plans, meets(best, target) and best.seconds < dense


def _new_choice(
    problem: RunProblem,
    budget: float,
    plans: Sequence[VerifiedPlan],
    target: Target,
    times: NDArray[np.float64],
) -> RunChoice | None:
    """The choice of a budget, or the frontier's next choice if it was verified before.

    None if that was verified too.
    """
    known = {plan.choice.key for plan in plans}
    choice = problem.solve(budget)
    if choice.key not in known:
        return choice
    last = plans[-1]
    if not meets(last, target):
        others = times[(times > 1.001 * last.seconds) & (times < 0.999 * problem.dense_seconds)][:1]
    else:
        others = times[times < 0.999 * last.seconds][-1:]
    if not len(others):
        return None
    choice = problem.solve(1.0001 * float(others[0]))
    return None if choice.key in known else choice


def expected_level(points: Sequence[tuple[float, float]], aim: float) -> float:
    """Predicted decibels at which a plan is expected to have a quality of `aim` dB.

    A line through the (predicted, measured) points of verified plans, where points near the aim
    count most. Its slope is the usual slope, corrected by the points if their predictions span at
    least `LEAST_SPREAD_DB`.
    """
    predicted, measured = np.array(points).T
    weights = 1 / (SCATTER_DB**2 + (BEND * (measured - aim)) ** 2)
    middle, height = (float(np.average(x, weights=weights)) for x in (predicted, measured))
    slope = USUAL_SLOPE
    if np.ptp(predicted) >= LEAST_SPREAD_DB:
        offsets, prior = predicted - middle, 1 / SLOPE_SPREAD**2
        slope = (prior * USUAL_SLOPE + np.sum(weights * offsets * (measured - height))) / (
            prior + np.sum(weights * offsets**2)
        )
    return float(middle + (aim - height) / max(slope, LEAST_SLOPE))
