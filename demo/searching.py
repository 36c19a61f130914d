"""A small search for the page: a time limit, progress, and the best plan verified so far."""

from __future__ import annotations

import re
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from ajour.demo.device import Stopped
from ajour.demo.errors import searched_errors
from ajour.demo.heads import ShownPlan
from ajour.search.calibrate.prompt import probed_steps
from ajour.search.engine import Progress, Search
from ajour.search.report.figures import fitted
from ajour.search.settings import Settings, Target
from ajour.search.solve.target import TRIES, USUAL_OFFSET_DB, best_of, meets
from ajour.search.work import Work
from ajour.search.workers import Workers

if TYPE_CHECKING:
    from ajour.demo.device import Job
    from ajour.demo.model import Model
    from ajour.demo.request import Request
    from ajour.search.bands import Bands
    from ajour.search.results import VerifiedPlan

    Points = tuple[tuple[float, float], ...]
    """(speed-up, PSNR) each."""

BANDS = 3
"""Bands of steps that may get different assignments."""

BEST_SHOWN, SPAN_SHOWN = 60.0, 20.0
"""Decibels: a prediction is not drawn above 60 dB, unless it is at most 20 dB above the lowest."""

MEASURING, TIMING, COMPARING = "errors", "times", "dense"
TRYING, AGAINST = "plans", "simple plans"
STAGES = {
    "identity": MEASURING, "probe": MEASURING, "prompt": MEASURING, "costs": COMPARING,
    "dense": TRYING, "plan": TRYING,
}  # fmt: skip
"""The stage after a unit of work, by the first part of its key."""

MOST_PLANS = {"psnr": TRIES, "speedup": 1, "density": 1}
"""Plans that are verified at most, by the kind of target."""


class Point(NamedTuple):
    """A verified plan, measured.

    Attributes:
        name: of the pattern that all its heads have; empty for a plan that the search tried.
        speedup: over dense attention.
        psnr_db: against dense attention.
    """

    name: str
    speedup: float
    psnr_db: float


@dataclass(frozen=True)
class SearchProgress:
    """How far a search is.

    Attributes:
        limit: the time limit, in seconds.
        most: plans that are verified at most.
        stage: what it does now.
        done: finished parts of the stage.
        parts: of the stage; 0 if not known.
        seconds: since the start.
        begun: when the stage began, in seconds since the start.
        changed: when a part was finished last, in seconds since the start.
        frontier: predicted, (speed-up, PSNR) each.
        verified: measured, in the order of their verification.
    """

    limit: float
    most: int
    stage: str = MEASURING
    done: int = 0
    parts: int = 0
    seconds: float = 0.0
    begun: float = 0.0
    changed: float = 0.0
    frontier: Points = ()
    verified: tuple[Point, ...] = ()

    @property
    def tried(self) -> tuple[Point, ...]:
        """The plans that were tried for the target, without those of one pattern for all heads."""
        return tuple(point for point in self.verified if not point.name)

    @property
    def left(self) -> float | None:
        """Seconds that the stage lasts at most, by its pace and the time limit; None if unknown."""
        if not self.done or not self.parts:
            return None
        pace = (self.changed - self.begun) / self.done
        left = pace * (self.parts - self.done) - (self.seconds - self.changed)
        return max(0.0, min(left, self.limit - self.seconds))


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        shown: the plan and the errors of its heads.
        chosen: the plan's measured figures.
        density: of all steps; None if the search ended early.
        target: the target of the search.
        met: whether the plan meets the target.
        progress: the last progress.
        request: size, steps and prompt of the search.
        dense: whether dense attention is the answer.
        ended: why it ended early: `stopped`, `time`, or empty.
    """

    shown: ShownPlan
    chosen: VerifiedPlan
    density: float | None
    target: Target
    met: bool
    progress: SearchProgress
    request: Request
    dense: bool = False
    ended: str = ""


class _WatchedWork(Work):
    """Reports each finished unit to a job, which may end there."""

    def __init__(self, folder: Path, settings: Settings, job: Job, limit: float) -> None:
        self.job = job
        self.progress = SearchProgress(limit, MOST_PLANS[settings.target.kind])
        self.start = time.monotonic()
        self.parts = {TRYING: self.progress.most}
        super().__init__(folder, settings.identity())

    def put(self, key: str, value: Any) -> None:
        super().put(key, value)
        kind = key.split("/")[0]
        stage = TIMING if re.fullmatch(r"prompt/\d+", key) else STAGES[kind]
        done = self.progress.done + 1 if kind == "prompt" else self.progress.done
        self.report(stage, len(self.progress.tried) if stage == TRYING else done)

    def report(self, stage: str, done: int, **changes: Any) -> None:
        """Report where the search is.

        Args:
            stage: that it is in now.
            done: finished parts of the stage.
            changes: of other fields of the progress.
        """
        seconds, before = time.monotonic() - self.start, self.progress
        if stage != before.stage:
            changes |= {"begun": seconds, "changed": seconds}
        elif done != before.done:
            changes |= {"changed": seconds}
        self.progress = replace(
            before, stage=stage, done=done, parts=self.parts.get(stage, 0), seconds=seconds,
            **changes,
        )  # fmt: skip
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
            verified = tuple(Point(p.name, p.speedup, p.psnr_db) for p in progress.verified)
            tried = sum(not point.name for point in verified)
            stage = AGAINST if tried < len(verified) else TRYING if verified else COMPARING
            curve = predicted(progress, target)
            work.report(stage, tried, frontier=curve, verified=verified)

        density, dense, ended = None, False, ""
        try:
            engine = Search(pipe, settings, work, Workers(), on_progress=on_progress)
            work.parts[MEASURING] = parts_of_errors(engine.bands)
            outcome = engine.run()
        except Stopped:
            tried = [] if latest is None else [plan for plan in latest.verified if not plan.name]
            if not tried:
                raise
            chosen = best_of(tried, target)
            plan, met = chosen.plan, meets(chosen, target)
            ended = "time" if job.timed_out else "stopped"
        else:
            plan, met, chosen, density = outcome.plan, outcome.met, outcome.chosen, outcome.density
            dense = outcome.dense_is_best or not (plan.assignments or plan.schedule.reuses)
    assert latest is not None  # reported once errors were measured
    calibration = latest.calibrations[0]
    errors = searched_errors(calibration, engine.bands, list(engine.candidates), plan)
    text = f"Errors measured during the search, seed {request.seed}: {request.prompt}"
    grid = replace(engine.shape.grid, before=0, after=0)
    shown = ShownPlan(plan, "Result of a search", grid, errors, text)
    return SearchResult(shown, chosen, density, target, met, work.progress, request, dense, ended)


def parts_of_errors(bands: Bands) -> int:
    """Units of work in which the errors of one prompt are measured."""
    return 2 + len(probed_steps(bands)) + 2 * len(bands.starts)


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
