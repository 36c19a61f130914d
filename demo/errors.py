"""The error of every head under a plan, measured on the model in one dense step of each phase."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.demo.heads import shown_assignments
from ajour.patterns import Full
from ajour.pipelines.enable import transformers_of
from ajour.pipelines.generate import sample
from ajour.search.calibrate.errors import ErrorMeter
from ajour.search.setup import Setup, uniform_plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ajour.demo.device import Job
    from ajour.demo.heads import ShownPlan
    from ajour.demo.model import Model
    from ajour.demo.request import Request
    from ajour.plan import Plan
    from ajour.search.bands import Bands
    from ajour.search.calibrate.prompt import Calibration

MOST_MEASURED = 32
"""Patterns that are measured in one pass; a search's plan has about 16."""


class _Enough(Exception):
    """Ends a run once its last measured step is done."""


def measure(pipe: Any, job: Job, shown: ShownPlan, request: Request, model: Model) -> ShownPlan:
    """Measure the error of every head's pattern in a dense run.

    The patterns of an assignment are measured in a step that uses it.

    Args:
        pipe: the pipeline, not enabled.
        job: this job; its progress is (steps done, steps in all).
        shown: the plan.
        request: prompt, seed, size and steps of the run.
        model: the model of the pipeline.

    Returns:
        The plan with errors, on the run's grid.

    Raises:
        TypeError: if the pipeline has two transformers.
        PlanError: if the plan is for another model.
        ValueError: if the plan uses no patterns, or too many.
    """
    if len(transformers_of(pipe)) > 1:
        raise TypeError("errors are measured on pipelines with one transformer; this one has two")
    plan, dense = shown.plan, uniform_plan(pipe.transformer, Full())
    plan.check_model(**dense.model)
    names = sorted(
        {name for key in shown_assignments(plan) for row in plan.assignments[key] for name in row}
    )
    if not names:
        raise ValueError("every step of this plan is dense: there is nothing to measure")
    if len(names) > MOST_MEASURED:
        raise ValueError(
            f"errors are measured of at most {MOST_MEASURED} patterns, the plan uses {len(names)}"
        )
    steps: dict[str, int] = {}  # of each assignment; known once the run has begun

    def on_step(_label: str, step: int, _latents: Any) -> None:
        job.check()
        last = max(steps.values())
        job.report((step + 1, last + 1))
        if step == last:
            raise _Enough

    call = model.call(pipe, request)
    setup = Setup(pipe, call, model.backend)
    with setup.enabled(dense) as session:
        measured = [plan.patterns[name] for name in names]
        chosen: list[int] = []
        meter = ErrorMeter(session, measured, steps=chosen)

        def listen(*layer: Any) -> None:
            job.check()
            if not steps:
                steps.update(measured_steps(plan, session.noise_levels))
                chosen.extend(sorted(set(steps.values())))
            meter(*layer)

        with session.runtimes[0].listen(listen), suppress(_Enough):
            sample(pipe, request.prompt, request.seed, "dense", on_step, **call)
        scores, grid = meter.errors(), session.runtimes[0].grid
    assert grid is not None
    errors = {
        key: _of_heads(scores[chosen.index(step)], plan, key, names) for key, step in steps.items()
    }
    text = (
        f"Errors measured at {request.size}, {request.steps} steps, seed {request.seed}, each "
        f"phase in a step that uses it: {request.prompt}"
    )
    grid = replace(grid, before=0, after=0)
    frames = shown.frames if grid.shape == shown.grid.shape else None
    return replace(shown, grid=grid, errors=errors, measured=text, frames=frames)


def measured_steps(plan: Plan, noise_levels: Sequence[float]) -> dict[str, int]:
    """The step in which each shown assignment is measured.

    It is the middle step of those that use the assignment. Where none does, as in a short run, it
    is the middle step of the run.
    """
    phases = plan.schedule.steps(noise_levels)
    steps = {}
    for name in shown_assignments(plan):
        used = [step for step, phase in enumerate(phases) if phase == name]
        steps[name] = used[len(used) // 2] if used else len(phases) // 2
    return steps


def searched_errors(
    calibration: Calibration, bands: Bands, candidates: Sequence[str], plan: Plan
) -> dict[str, NDArray[np.float64]]:
    """The errors of a searched plan's heads, by assignment, as the search measured them.

    Args:
        calibration: the search's measurements on one prompt.
        bands: of the run.
        candidates: names of the patterns that were measured.
        plan: the plan.
    """
    errors = calibration.errors
    names = np.array([plan.schedule.at(bands.noise_levels[start]) for start in bands.starts])
    return {
        name: _of_heads(errors[names == name].mean(axis=0), plan, name, candidates)
        for name in plan.assignments
        if name in names
    }


def _of_heads(
    errors: NDArray[np.float64], plan: Plan, assignment: str, names: Sequence[str]
) -> NDArray[np.float64]:
    """Errors of all patterns (layers, heads, C) to those of each head's pattern (layers, heads)."""
    index = np.array([[names.index(n) for n in row] for row in plan.assignments[assignment]])
    return np.asarray(np.take_along_axis(errors, index[..., None], -1)[..., 0])
