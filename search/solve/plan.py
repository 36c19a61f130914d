"""The plan that a choice stands for, and the choices of one pattern to compare it with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.plan import Plan
from ajour.schedule import DENSE, Phase, Schedule
from ajour.search.solve.problem import DENSE_BAND

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ajour.patterns import Pattern
    from ajour.search.bands import Bands
    from ajour.search.solve.problem import Choice, Problem

COMPARED = 2
"""Single patterns that a search compares its plan with."""

SLOWER = 1.1
"""Predicted time of a single pattern over that of the plan, at most: dense bands come in steps of
about this size, and the longer time favours the single pattern."""


def build_plan(
    model: Mapping[str, Any], candidates: Mapping[str, Pattern], choice: Choice, bands: Bands
) -> Plan:
    """The plan of a choice.

    Bands with the same choice share an assignment, and neighbours among them a phase. Phases begin
    at noise levels halfway between two steps, so that other numbers of steps are split alike.
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


def single_patterns(
    problem: Problem, names: Sequence[str], seconds: float
) -> list[tuple[str, Choice]]:
    """The best choices of about a plan's time that have one pattern throughout.

    A pattern runs after as many dense bands as keep within `SLOWER` times the plan's time, if that
    has less error than fewer dense bands. The patterns of least predicted error are taken, one per
    kind (the word before the first dash of a name), as (name, choice), the best first.
    """
    best: dict[str, tuple[float, str, Choice]] = {}
    for index, name in enumerate(names):
        kind = name.split("-")[0]
        if kind in ("full", "skip"):
            continue
        for dense_bands in range(len(problem.dense)):
            choice = np.full(problem.errors.shape[:3], index, dtype=np.int64)
            choice[:dense_bands] = DENSE_BAND
            if problem.seconds(choice) > SLOWER * seconds:
                break
            error = problem.error(choice)
            if kind not in best or error < best[kind][0]:
                best[kind] = (error, name, choice)
    ranked = sorted(best.values(), key=lambda entry: entry[0])
    return [(name, choice) for _, name, choice in ranked[:COMPARED]]
