"""A small search for the page: a time limit, progress, and the best plan verified so far."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ajour.demo.device import Stopped
from ajour.demo.errors import searched_errors
from ajour.demo.heads import ShownPlan
from ajour.search.engine import Progress, Search
from ajour.search.report.figures import fitted
from ajour.search.settings import Settings, Target
from ajour.search.solve.target import USUAL_OFFSET_DB, best_of, meets
from ajour.search.work import Work
from ajour.search.workers import Workers

if TYPE_CHECKING:
    from ajour.demo.device import Job
    from ajour.demo.model import Model
    from ajour.demo.request import Request
    from ajour.search.results import VerifiedPlan

    Points = tuple[tuple[float, float], ...]
    """(speed-up, PSNR) each."""

BANDS = 3
"""Bands of steps that may get different assignments."""

BEST_SHOWN, SPAN_SHOWN = 60.0, 20.0
"""Decibels: a prediction is not drawn above 60 dB, unless it is at most 20 dB above the lowest."""

STAGES = {
    "identity": "Reading the model",
    "probe": "Measuring the error of every pattern on every head",
    "prompt": "Measuring the error of every pattern on every head",
    "costs": "Generating dense videos to compare with",
    "dense": "Verifying plans",
    "plan": "Verifying plans",
}
"""The stage after a unit of work, by the first part of its key."""


@dataclass(frozen=True)
class SearchProgress:
    """How far a search is.

    Attributes:
        stage: what it does now.
        units: finished units of work.
        seconds: since the start.
        limit: the time limit, in seconds.
        frontier: predicted.
        verified: measured, of each verified plan.
    """

    stage: str
    units: int
    seconds: float
    limit: float
    frontier: Points = ()
    verified: Points = ()


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        shown: the plan and the errors of its heads.
        chosen: the plan's measured figures.
        density: of all steps; None if the search was stopped or out of time.
        target: the target of the search.
        met: whether the plan meets the target.
        progress: the last progress.
    """

    shown: ShownPlan
    chosen: VerifiedPlan
    density: float | None
    target: Target
    met: bool
    progress: SearchProgress


class _WatchedWork(Work):
    """Reports each finished unit to a job, which may end there."""

    def __init__(self, folder: Path, settings: Settings, job: Job, limit: float) -> None:
        self.job = job
        self.progress = SearchProgress(STAGES["identity"], 0, 0.0, limit)
        self.start = time.monotonic()
        super().__init__(folder, settings.identity())

    def put(self, key: str, value: Any) -> None:
        super().put(key, value)
        self.report(stage=STAGES[key.split("/")[0]], units=self.progress.units + 1)

    def report(self, **changes: Any) -> None:
        seconds = time.monotonic() - self.start
        self.progress = replace(self.progress, seconds=seconds, **changes)
        self.job.report(self.progress)
        self.job.check()


def search(
    pipe: Any, job: Job, target: Target, request: Request, model: Model, limit: float
) -> SearchResult:
    """Search until the target is met, the time is up or the job is stopped.

    Errors are measured on one prompt and plans are verified on another.

    Args:
        pipe: a supported pipeline, not enabled.
        job: this job, with its time limit; its progress is `SearchProgress`.
        target: the target.
        request: seed, size and steps, and the prompt to measure errors on.
        model: the model of the pipeline.
        limit: the job's time limit in seconds, to be shown.

    Returns:
        The plan of the search; if it was stopped early, the best plan verified by then.

    Raises:
        Stopped: if no plan was verified by then.
    """
    settings = Settings(
        model=model.path or "mini",
        target=target,
        calibration=(request.prompt,),
        verification=(next(prompt for prompt in model.prompts if prompt != request.prompt),),
        call=model.call(pipe, request),
        seed=request.seed,
        bands=BANDS,
        backend=model.backend,
    )
    latest: Progress | None = None
    with (
        TemporaryDirectory() as folder,
        closing(_WatchedWork(Path(folder), settings, job, limit)) as work,
    ):

        def on_progress(progress: Progress) -> None:
            nonlocal latest
            latest = progress
            verified = tuple((plan.speedup, plan.psnr_db) for plan in progress.verified)
            work.report(frontier=predicted(progress, target), verified=verified)

        density = None
        try:
            engine = Search(pipe, settings, work, Workers(), on_progress=on_progress)
            outcome = engine.run()
        except Stopped:
            if latest is None or not latest.verified:
                raise
            chosen = best_of(latest.verified, target)
            plan, met = chosen.plan, meets(chosen, target)
        else:
            plan, met, chosen, density = outcome.plan, outcome.met, outcome.chosen, outcome.density
    assert latest is not None  # reported once errors were measured
    calibration = latest.calibrations[0]
    errors = searched_errors(calibration, engine.bands, list(engine.candidates), plan)
    text = f"Errors measured during the search, seed {request.seed}: {request.prompt}"
    grid = replace(engine.shape.grid, before=0, after=0)
    shown = ShownPlan(plan, "Result of a search", grid, errors, text)
    return SearchResult(shown, chosen, density, target, met, work.progress)


def predicted(progress: Progress, target: Target) -> Points:
    """The predicted frontier, moved so that it runs through the best verified plan."""
    problem = progress.problem
    known, measured = (problem.dense_seconds, 0.0), (1.0, USUAL_OFFSET_DB)
    if progress.verified:
        best = best_of(progress.verified, target)
        known, measured = (best.seconds, best.decibels), (best.speedup, best.psnr_db)
    curve = [(problem.seconds(c), problem.decibels(c)) for c in problem.frontier]
    points = fitted(curve, known, measured)
    limit = max(BEST_SHOWN, min(psnr for _, psnr in points) + SPAN_SHOWN)
    return tuple(point for point in points if point[1] <= limit)
