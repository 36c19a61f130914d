"""The plan that a choice stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.plan import Plan
from ajour.schedule import DENSE, Phase, Schedule
from ajour.search.solve.problem import DENSE_BAND

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ajour.patterns import Pattern
    from ajour.search.bands import Bands
    from ajour.search.solve.problem import Choice


def build_plan(
    model: Mapping[str, Any], candidates: Mapping[str, Pattern], choice: Choice, bands: Bands
) -> Plan:
    """The plan of a choice.

    Bands with the same choice share an assignment, and neighbours among them a phase. Phases begin
    at noise levels halfway between two steps, so that other numbers of steps are split alike.

    Args:
        model: the plan's `model`.
        candidates: patterns by name.
        choice: (bands, layers, heads).
        bands: of the run.
    """
    names = list(candidates)
    assignments: dict[tuple[tuple[str, ...], ...], str] = {}
    phases: list[Phase] = []
    for edge, chosen in zip(bands.edges, choice, strict=True):
        if (chosen == DENSE_BAND).all():
            assignment = DENSE
        else:
            rows = tuple(tuple(names[index] for index in row) for row in chosen)
            assignment = assignments.setdefault(rows, f"sparse-{len(assignments) + 1}")
        if not phases or phases[-1].assignment != assignment:
            phases.append(Phase(edge, assignment))
    used = np.unique(choice[choice != DENSE_BAND])
    return Plan(
        dict(model),
        {names[index]: candidates[names[index]] for index in used},
        {assignment: rows for rows, assignment in assignments.items()},
        Schedule(tuple(phases)),
    )
