"""A small search for the page: a time limit, news as it goes, and the best plan found so far."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.demo.device import Stopped
from ajour.demo.heads import Shown, parse_grid
from ajour.demo.measure import from_search
from ajour.search.balance import USUAL_OFFSET_DB, best_of, decibels, meets
from ajour.search.engine import Progress, Search
from ajour.search.figures import fitted
from ajour.search.settings import Settings, Target
from ajour.search.solve import frontier
from ajour.search.work import Work
from ajour.search.workers import Workers

if TYPE_CHECKING:
    from ajour.demo.device import Job
    from ajour.demo.model import Model
    from ajour.demo.request import Request
    from ajour.plan import Plan

BANDS = 3
"""Bands of steps that may get different assignments."""

BEST_SHOWN, SPAN_SHOWN = 60.0, 20.0
"""Decibels: predictions above both the first and the least plus the second are not drawn."""

STAGES = {
    "identity": "Looking at the model",
    "probe": "Measuring the error of every pattern on every head",
    "prompt": "Measuring the error of every pattern on every head",
    "costs": "Making dense videos to compare with",
    "dense": "Verifying plans",
    "plan": "Verifying plans",
}
"""What comes after a unit of work whose key begins so."""


@dataclass(frozen=True)
class SearchNews:
    """Where a search is.

    Attributes:
        stage: what is being done.
        units: finished pieces of work.
        seconds: since the start.
        limit: the time limit.
        frontier: (speed-up, PSNR), predicted.
        tried: (speed-up, PSNR), measured, of each verified plan.
    """

    stage: str
    units: int
    seconds: float
    limit: float
    frontier: tuple[tuple[float, float], ...] = ()
    tried: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Found:
    """What a search ended with.

    Attributes:
        shown: the plan and the errors of its heads.
        speedup: measured, of denoising.
        psnr_db: measured.
        density: over all steps, if the search came to its end.
        target: what was asked for.
        met: whether it holds.
        ended: whether the search came to its end, or was stopped or out of time.
        news: the last of it.
    """

    shown: Shown
    speedup: float
    psnr_db: float
    density: float | None
    target: Target
    met: bool
    ended: bool
    news: SearchNews


class _WatchedWork(Work):
    """Tells a job of each finished unit, and lets it end there."""

    def __init__(self, folder: Path, settings: Settings, job: Job, limit: float) -> None:
        self.job = job
        self.news = SearchNews(STAGES["identity"], 0, 0.0, limit)
        self.begun = time.monotonic()
        super().__init__(folder, settings.identity())

    def put(self, key: str, value: Any) -> None:
        super().put(key, value)
        stage = STAGES[key.split("/")[0]]
        self.tell(stage=stage, units=self.news.units + 1)
        self.job.check()

    def tell(self, **changes: Any) -> None:
        spent = time.monotonic() - self.begun
        self.news = replace(self.news, seconds=spent, **changes)
        self.job.tell(self.news)


def search(
    pipe: Any, job: Job, target: Target, request: Request, model: Model, limit: float
) -> Found:
    """Search until the target holds, the time is up or the job is stopped.

    One prompt is measured on and another one verified on.

    Args:
        pipe: a pipeline with one transformer, not enabled.
        job: the job that this is, with its time limit.
        target: what to reach.
        request: seed, size and steps; its prompt is measured on.
        model: whose pipeline it is.
        limit: the job's time limit, to be shown.

    Returns:
        The plan of the search, or where it did not end the best one verified.

    Raises:
        Stopped: if no plan was verified by then.
    """
    call = model.call(pipe, request)
    other = next(prompt for prompt in model.prompts if prompt != request.prompt)
    settings = Settings(
        model=model.path or "mini",
        target=target,
        calibration=(request.prompt,),
        verification=(other,),
        call=call,
        seed=request.seed,
        bands=BANDS,
        backend=model.backend,
    )
    seen: list[Progress] = []
    with TemporaryDirectory() as folder:
        work = _WatchedWork(Path(folder), settings, job, limit)

        def watch(progress: Progress) -> None:
            seen.append(progress)
            work.tell(frontier=predicted(progress, target), tried=measured(progress))
            job.check()

        plan: Plan | None = None
        try:
            engine = Search(pipe, settings, work, Workers(), watch=watch)
            outcome = engine.run()
        except Stopped:
            if not seen or not seen[-1].tried:
                raise
            best = best_of(seen[-1].tried, target)
            plan, density = seen[-1].plan(best.choice), None
            figures, met, ended = best.found, meets(best, target), False
        else:
            plan, met, ended = outcome.plan, outcome.met, True
            figures, density = outcome.facts["chosen"], outcome.facts["density"]
        measurements = work["prompt/0"]
        errors = from_search(
            [np.array(measurements["errors"])], list(engine.candidates),
            measurements["levels"], plan,
        )  # fmt: skip
    grid = parse_grid(str(engine.grid))
    assert grid is not None
    note = f"Errors measured during the search, seed {request.seed}: {request.prompt}"
    shown = Shown(plan, "Found by search", grid, errors, note)
    return Found(
        shown, figures["speedup"], figures["psnr_db"], density, target, met, ended, work.news
    )


def predicted(progress: Progress, target: Target) -> tuple[tuple[float, float], ...]:
    """The frontier as (speed-up, PSNR), through the best verified plan."""
    problem = progress.problem
    if progress.tried:
        known = best_of(progress.tried, target).facts
    else:
        known = {
            "seconds": float(problem.dense.sum()), "decibels": 0.0,
            "speedup": 1.0, "psnr_db": USUAL_OFFSET_DB,
        }  # fmt: skip
    choices = frontier(problem)
    points = fitted([(problem.seconds(c), decibels(problem, c)) for c in choices], known)
    limit = max(BEST_SHOWN, min(point[1] for point in points) + SPAN_SHOWN)
    return tuple(point for point in points if point[1] <= limit)


def measured(progress: Progress) -> tuple[tuple[float, float], ...]:
    """The verified plans as (speed-up, PSNR)."""
    return tuple((one.found["speedup"], one.found["psnr_db"]) for one in progress.tried)
