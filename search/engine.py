"""The search from start to end: calibrate, time, solve, verify."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ajour.lowering import density
from ajour.schedule import DENSE, REUSE
from ajour.search.bands import steps_of
from ajour.search.calibrate.prompt import (
    Calibration,
    Calibrator,
    mean_changes,
    reuse_gains,
    weighted_errors,
)
from ajour.search.provenance import origin, provenance
from ajour.search.results import Outcome, VerifiedPlan
from ajour.search.setup import Setup
from ajour.search.shape import RunShape, bands_of, run_shape
from ajour.search.solve.candidates import default_candidates
from ajour.search.solve.joint import RunChoice, RunProblem
from ajour.search.solve.plan import build_plan, single_patterns
from ajour.search.solve.problem import density_problem, time_problem
from ajour.search.solve.target import reach
from ajour.search.timing.costs import Costs, conditions
from ajour.search.timing.layers import measure_costs
from ajour.search.timing.passes import PassTimes, time_plan
from ajour.search.units import array
from ajour.search.verify.runs import Verifier, plan_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ajour.patterns import Pattern
    from ajour.plan import Plan
    from ajour.search.bands import Bands
    from ajour.search.settings import Settings
    from ajour.search.solve.problem import Choice
    from ajour.search.work import Work
    from ajour.search.workers import Workers


class Progress(NamedTuple):
    """Calibrations of every prompt, the problem in seconds, and verified plans in order."""

    calibrations: Sequence[Calibration]
    problem: RunProblem
    verified: tuple[VerifiedPlan, ...]


class Search:
    """One search.

    Args:
        pipe: a supported pipeline, not enabled.
        settings: of the search.
        work: where finished units are kept.
        workers: the processes that share the work.
        candidates: patterns by name, `full` first; the default list of the grid if None.
        on_progress: called when errors and times are known, and after each verified plan.

    Raises:
        TypeError: if the pipeline cannot be searched, see `Setup` and `run_shape`.
        WorkError: if the work was begun on another device or with other weights, versions or
            candidates.
    """

    def __init__(
        self,
        pipe: Any,
        settings: Settings,
        work: Work,
        workers: Workers,
        candidates: Mapping[str, Pattern] | None = None,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self.setup = Setup(pipe, settings.call, settings.backend)
        self.settings = settings
        self.work = work
        self.workers = workers
        self.on_progress = on_progress
        workers.claim(work, "identity/origin", origin(self.setup))
        prompt = settings.calibration[0]
        workers.first_only(work, "probe", lambda: asdict(run_shape(self.setup, prompt)))
        self.shape = work.read("probe", RunShape.from_dict)
        self.bands = bands_of(settings, self.shape)
        self.candidates = dict(candidates or default_candidates(self.shape.grid))
        patterns = {name: pattern.to_dict() for name, pattern in self.candidates.items()}
        workers.claim(work, "identity/candidates", {"candidates": patterns})
        self.densities = np.array([density(p, self.shape.grid) for p in self.candidates.values()])
        first_seed = settings.seed + len(settings.calibration)
        self.verifier = Verifier(self.setup, settings.verification, first_seed, work, workers)

    def run(self) -> Outcome:
        """Do everything that is not done yet.

        Raises:
            ValueError: if no choice can meet the target, or the given costs are of another device,
                grid or the like.
        """
        settings, target = self.settings, self.settings.target
        if settings.costs is not None:
            self._costs()  # raises before anything is measured
        calibrations = self._calibrate()
        costs = self._costs()
        bands = self.bands
        errors = weighted_errors(calibrations, bands)
        changes = mean_changes(calibrations, bands) if settings.reuse else None
        gains = reuse_gains(calibrations, bands)
        problem = RunProblem(partial(time_problem, errors, costs), bands, changes, gains)
        shares = partial(density_problem, errors, self.densities)
        densities = RunProblem(shares, bands, None, gains, problem.ways[1:])
        verified: dict[str, VerifiedPlan] = {}

        def build(choice: RunChoice) -> Plan:
            return build_plan(self.setup.model, self.candidates, choice.heads, bands, choice.gaps)

        def report() -> None:
            self.on_progress(Progress(calibrations, problem, tuple(verified.values())))

        def verify(choice: RunChoice, timed: bool = True, name: str = "") -> VerifiedPlan:
            plan = build(choice)
            key = plan_key(plan)
            predicted = problem.seconds(choice), problem.decibels(choice)
            result = VerifiedPlan(name, plan, choice, key, *predicted, self.verifier.verify(plan))
            if timed:
                attention = _attention_seconds(plan, choice.heads, bands, costs)
                times = self._time_plan(plan)
                result = replace(result, times=times, predicted_attention_seconds=attention)
            verified[key] = result
            report()
            return result

        def measure_speedup(choice: RunChoice) -> float:
            if self._predicts:
                return problem.dense_seconds / problem.seconds(choice)
            return self._time_plan(build(choice)).speedup

        report()
        # For a target quality, only the passes of the chosen plan are timed.
        attempt = partial(verify, timed=target.kind != "psnr")
        chosen, plans, met = reach(target, problem, densities, attempt, measure_speedup)
        if chosen.times is None:
            chosen = verify(chosen.choice)
        attempts = tuple(verified[plan.key] for plan in plans)
        baselines = tuple(
            verify(RunChoice(heads), name=name)
            for name, heads in single_patterns(
                problem.computed, list(self.candidates), chosen.seconds
            )
        )
        outcome = Outcome(
            plan=chosen.plan,
            settings=settings,
            met=met,
            met_by="prediction" if self._predicts else "measurement",
            costs=costs,
            grid=self.shape.grid,
            bands=bands,
            onset=tuple(np.mean([c.onset for c in calibrations], axis=0).tolist()),
            band_errors=tuple(problem.band_errors(chosen.choice).tolist()),
            dense_seconds=problem.dense_seconds,
            frontier=tuple((problem.seconds(c), problem.decibels(c)) for c in problem.frontier),
            verified=attempts,
            chosen=chosen,
            baselines=baselines,
            density=densities.seconds(chosen.choice) / densities.dense_seconds,
        )
        outcome = replace(outcome, met=met and not outcome.dense_is_best)
        plan = replace(chosen.plan, provenance=provenance(self.setup, outcome))
        return replace(outcome, plan=plan)

    @property
    def _predicts(self) -> bool:
        """Whether a target of speed is judged by given costs, which count as true.

        Their prediction leaves out the measuring of captured maps.
        """
        return self.settings.costs is not None and self.settings.target.kind == "speedup"

    def _calibrate(self) -> list[Calibration]:
        """The calibration of every prompt; the processes share the prompts."""
        settings = self.settings
        calibrator = Calibrator(self.setup, self.candidates, self.densities, self.bands)

        def measure(number: int, tick: Callable[[], Any]) -> dict[str, Any]:
            def unit(part: str, shape: Sequence[int], compute: Callable[[], Any]) -> Any:
                key = f"prompt/{number}/{part}"
                self.work.once(key, compute)
                tick()
                return self.work.read(key, partial(array, shape=shape))

            prompt, seed = settings.calibration[number], settings.seed + number
            return calibrator.measure(prompt, seed, unit).to_dict()

        count = len(settings.calibration)
        self.workers.share(self.work, "prompt", count, measure, calibrator.units)
        return [self.work.read(f"prompt/{n}", calibrator.read) for n in range(count)]

    def _costs(self) -> Costs:
        """The cost model: given, or measured by the first process."""
        shape, costs = self.shape, self.settings.costs
        if costs is not None:
            costs.check(conditions(self.setup, shape.grid), list(self.candidates), shape.passes)
            return costs

        given = self.setup, self.candidates, shape.grid, shape.passes, self.settings.calibration[0]
        self.workers.first_only(self.work, "costs", lambda: asdict(measure_costs(*given)))
        return self.work.read("costs", Costs.from_dict)

    def _time_plan(self, plan: Plan) -> PassTimes:
        """Times of a plan's passes, measured by the first process."""
        key, shape, prompt = f"{plan_key(plan)}/passes", self.shape, self.settings.calibration[0]
        given = self.setup, plan, shape.noise_levels, prompt, shape.passes, shape.cuts
        measure = partial(time_plan, *given)
        self.workers.first_only(self.work, key, lambda: asdict(measure()))
        return self.work.read(key, PassTimes.from_dict)


def _attention_seconds(plan: Plan, heads: Choice, bands: Bands, costs: Costs) -> float:
    """Predicted seconds in the operator of a run's mean sparse pass."""
    steps = steps_of(plan, bands.noise_levels, bands.cuts)
    seconds = [
        costs.attention(heads[bands.of(index)])
        for index, step in enumerate(steps)
        if step.assignment not in (DENSE, REUSE) and not step.measures
    ]
    return float(np.mean(seconds or [0.0]))
