"""The rule for steps: what every step of a denoising run does, from a schedule and noise levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ajour.schedule import DENSE, REUSE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ajour.schedule import Schedule


@dataclass(frozen=True)
class Step:
    """What one denoising step does.

    Args:
        assignment: name of the assignment in force, `dense` or `reuse`.
        measures: whether the step also measures captured patterns. Then it runs dense.
        slopes: of a reused step, see `Phase`.
    """

    assignment: str
    measures: bool = False
    slopes: tuple[float, ...] | None = None


def run_steps(
    schedule: Schedule,
    noise_levels: Sequence[float],
    captured: Callable[[str], bool],
    first: int = 0,
) -> tuple[Step, ...]:
    """What every step of a run does.

    A dense step measures captured patterns if the next computed step uses some. If no dense step
    comes before the first step with captured patterns, that step runs dense and measures them.

    Args:
        schedule: the schedule.
        noise_levels: of all steps of the run, in their order.
        captured: whether an assignment has captured patterns; never asked for `dense` or `reuse`.
        first: index of the first step that can measure: where the run begins, or where its grid
            changed, so that what was measured and computed before is of no use.

    Returns:
        One `Step` for each noise level.
    """
    names = schedule.steps(noise_levels, first)
    following, last = [], DENSE  # the next computed step of each step
    for name in reversed(names):
        following.append(last)
        last = last if name == REUSE else name
    steps: list[Step] = []
    measured = False
    for index, (name, after) in enumerate(zip(names, reversed(following), strict=True)):
        needed = after if name == DENSE else name
        measures = index >= first and needed not in (DENSE, REUSE) and captured(needed)
        measures = measures and (name == DENSE or not measured)
        measured = measured or measures
        slopes = schedule.slopes_at(noise_levels[index]) if name == REUSE else None
        steps.append(Step(DENSE, True) if measures else Step(name, slopes=slopes))
    return tuple(steps)
