"""The plan that a choice stands for, and the choices of one pattern to compare it with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.plan import Plan
from ajour.schedule import DENSE, REUSE, Phase, Schedule
from ajour.search.solve.problem import DENSE_BAND

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ajour.patterns import Pattern
    from ajour.search.bands import Bands
    from ajour.search.solve.problem import Choice, Problem
    from ajour.search.solve.reuse import Gap

COMPARED = 2
"""Single patterns that a search compares its plan with."""

SLOWER = 1.1
"""Predicted time of a single pattern over that of the plan, at most: dense bands come in steps of
about this size, and the longer time favours the single pattern."""


def build_plan(
    model: Mapping[str, Any],
    candidates: Mapping[str, Pattern],
    heads: Choice,
    bands: Bands,
    gaps: Sequence[Gap] = (),
) -> Plan:
    """The plan of a choice.

    Bands with the same choice share an assignment, and neighbouring steps of one use a phase.
    Phases begin at noise levels halfway between two steps, so that other numbers of steps are
    split alike.

    Args:
        model: the `model` of the plan.
        candidates: patterns by name.
        heads: the candidate of every head by band.
        bands: of the run.
        gaps: reused steps.
    """
    names = list(candidates)
    assignments: dict[tuple[tuple[str, ...], ...], str] = {}
    of_band: list[str] = []
    for chosen in heads:
        if (chosen == DENSE_BAND).all():
            of_band.append(DENSE)
        else:
            rows = tuple(tuple(names[index] for index in row) for row in chosen)
            of_band.append(assignments.setdefault(rows, f"sparse-{len(assignments) + 1}"))
    uses: list[tuple[str, tuple[float, ...] | None]] = [
        (of_band[bands.of(step)], None) for step in range(len(bands.noise_levels))
    ]
    for gap in gaps:
        uses[gap.start : gap.start + gap.length] = [(REUSE, gap.slopes)] * gap.length
    phases: list[Phase] = []
    for step, (assignment, slopes) in enumerate(uses):
        if step == 0 or uses[step - 1] != uses[step]:
            phases.append(Phase(bands.edge(step), assignment, slopes=slopes))
    computed = {phase.assignment for phase in phases}
    kept = {name: rows for rows, name in assignments.items() if name in computed}
    used = {name for rows in kept.values() for row in rows for name in row}
    return Plan(
        dict(model),
        {name: pattern for name, pattern in candidates.items() if name in used},
        kept,
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
