"""The error of every head under a plan, measured on the model in one dense step."""

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
    """Ends a run once its middle step is done."""


def measure(pipe: Any, job: Job, shown: ShownPlan, request: Request, model: Model) -> ShownPlan:
    """Measure the error of every head's pattern in the middle step of a dense run.

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
        ValueError: if the plan uses too many patterns.
    """
    if len(transformers_of(pipe)) > 1:
        raise TypeError("errors are measured on pipelines with one transformer; this one has two")
    plan, dense = shown.plan, uniform_plan(pipe.transformer, Full())
    plan.check_model(**dense.model)
    assignments = shown_assignments(plan)
    names = sorted({name for key in assignments for row in plan.assignments[key] for name in row})
    if len(names) > MOST_MEASURED:
        raise ValueError(
            f"errors are measured of at most {MOST_MEASURED} patterns, the plan uses {len(names)}"
        )
    last = request.steps // 2

    def on_step(_label: str, step: int, _latents: Any) -> None:
        job.check()
        job.report((step + 1, last + 1))
        if step == last:
            raise _Enough

    call = model.call(pipe, request)
    setup = Setup(pipe, call, model.backend)
    with setup.enabled(dense) as session:
        measured = [plan.patterns[name] for name in names]
        meter = ErrorMeter(session, measured, steps=[last])

        def listen(*layer: Any) -> None:
            job.check()
            meter(*layer)

        with session.runtimes[0].listen(listen), suppress(_Enough):
            sample(pipe, request.prompt, request.seed, "dense", on_step, **call)
        scores = meter.errors()[0]
        level, grid = session.noise_levels[last], session.runtimes[0].grid
    assert grid is not None
    errors = {key: _of_heads(scores, plan, key, names) for key in assignments}
    text = f"Errors measured at noise level {level:.2f}, seed {request.seed}: {request.prompt}"
    return replace(shown, grid=replace(grid, before=0, after=0), errors=errors, measured=text)


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
