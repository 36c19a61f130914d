"""From choices to plans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.plan import Plan
from ajour.schedule import DENSE, Phase, Schedule
from ajour.search.calibrate import band_starts
from ajour.search.solve import DENSE_BAND

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ajour.patterns import Pattern
    from ajour.search.solve import Choice


def build_plan(
    model: Mapping[str, Any],
    candidates: Mapping[str, Pattern],
    choice: Choice,
    levels: Sequence[float],
) -> Plan:
    """The plan that follows a choice.

    Bands with the same choice share an assignment, and neighbours among them a phase. A boundary
    lies halfway between the noise levels of the steps around it, so that other numbers of steps
    are split alike.

    Args:
        model: the plan's `model`.
        candidates: patterns by name.
        choice: (bands, layers, heads).
        levels: noise level of each of the steps that the bands divide.
    """
    names = list(candidates)
    starts = band_starts(len(levels), len(choice))
    assignments: dict[tuple[tuple[str, ...], ...], str] = {}
    phases: list[Phase] = []
    for start, picked in zip(starts, choice, strict=True):
        if (picked == DENSE_BAND).all():
            use = DENSE
        else:
            rows = tuple(tuple(names[index] for index in row) for row in picked)
            use = assignments.setdefault(rows, f"sparse-{len(assignments) + 1}")
        below = 1.0 if start == 0 else round((levels[start - 1] + levels[start]) / 2, 6)
        if not phases or phases[-1].assignment != use:
            phases.append(Phase(below, use))
    used = np.unique(choice[choice != DENSE_BAND])
    return Plan(
        dict(model),
        {names[index]: candidates[names[index]] for index in used},
        {use: rows for rows, use in assignments.items()},
        Schedule(tuple(phases)),
    )
