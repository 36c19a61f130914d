"""A plan in a few lines of text."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ajour.quoting import shortened
from ajour.schedule import DENSE, REUSE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ajour.plan import Plan

MOST_PHASES = 6
"""Phases of a schedule that are listed one by one."""

MOST_ASSIGNMENTS = 12
"""Assignments that are listed; a line counts the others."""


def plan_text(plan: Plan) -> str:
    """The model, the schedule, the patterns of each assignment, and what a search verified."""
    model = plan.model
    phases = [(phase.from_noise_level, phase.assignment) for phase in plan.schedule.phases]
    rows = [
        ("model", f"{model['transformer']}, {model['layers']} layers x {model['heads']} heads"),
        ("schedule", schedule_text(phases)),
    ]
    for name, layers in list(plan.assignments.items())[:MOST_ASSIGNMENTS]:
        kinds = Counter(plan.patterns[pattern].kind for heads in layers for pattern in heads)
        rows.append((name, ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())))
    if left := len(plan.assignments) - MOST_ASSIGNMENTS:
        rows += [("", f"and {left} more assignments")] if left > 0 else []
    if text := verified_text(plan):
        rows.append(("verified", text))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def schedule_text(phases: Sequence[tuple[float, str]]) -> str:
    """The phases of a schedule, as (noise level from which it holds, assignment).

    Of many phases only where each assignment begins, and how many phases reuse steps.
    """
    if len(phases) <= MOST_PHASES:
        return ", ".join(f"{use} from {level:.3g}" for level, use in phases)
    first: dict[str, float] = {}
    for level, use in phases:
        first.setdefault(use, level)
    reused = sum(use == REUSE for _, use in phases)
    texts = [f"{use} from {level:.3g}" for use, level in first.items() if use != REUSE]
    if reused:
        texts.append(f"reused steps in {reused} phases from {first[REUSE]:.3g}")
    return ", ".join(texts)


def verified_text(plan: Plan) -> str:
    """Quality and speed that a search verified, and where; empty if the plan does not say.

    A plan file may come from anybody, so whatever has another form is left out.
    """
    verified = plan.provenance.get("verified")
    if not isinstance(verified, dict):
        return ""
    figures = []
    for key, form in (("psnr_db", "{:.1f} dB"), ("speedup", "{:.1f}x as fast as dense")):
        value = verified.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            figures.append(form.format(value))
    places = [plan.provenance.get(key) for key in ("grid", "device")]
    names = [shortened(place) for place in places if isinstance(place, str)]
    where = f", on {', '.join(names)}" if names else ""
    return f"{', '.join(figures)}{where}" if figures else ""


def step_counts(steps: Sequence[str]) -> str:
    """How many steps of a run were dense, sparse and reused, from what each of them used."""
    counts = Counter(use if use in (DENSE, REUSE) else "sparse" for use in steps)
    names = ((DENSE, "dense"), ("sparse", "sparse"), (REUSE, "reused"))
    each = ", ".join(f"{counts[key]} {name}" for key, name in names)
    return f"{len(steps)} step{'s' if len(steps) != 1 else ''}: {each}"
