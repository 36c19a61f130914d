"""The search from start to end: calibrate, time, solve, verify."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ajour.grid import TokenGrid
from ajour.lowering import density
from ajour.pipelines.auto import model_of
from ajour.schedule import DENSE
from ajour.search.balance import Tried, balance, decibels
from ajour.search.baselines import single_families
from ajour.search.build import build_plan
from ajour.search.calibrate import band_starts
from ajour.search.candidates import default_candidates
from ajour.search.costs import Costs, conditions, measure_costs
from ajour.search.measure import Calibration, gains
from ajour.search.passes import MEASURING, steps_run, time_passes
from ajour.search.probe import look, searched
from ajour.search.provenance import origin, provenance
from ajour.search.solve import Group, Problem, frontier
from ajour.search.verify import Verifier, plan_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ajour.patterns import Pattern
    from ajour.plan import Plan
    from ajour.search.settings import Settings
    from ajour.search.solve import Choice
    from ajour.search.work import Work
    from ajour.search.workers import Workers


MOST_SHARED = 20_000
"""Errors up to which first heads of a pattern are told from further ones; solving takes longer
then. Beyond, all cost as much as first ones."""


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    Attributes:
        plan: the chosen plan, with its provenance.
        met: whether the target holds: as measured, or where times were given for a target of
            speed, as predicted by them (`met_by` of the facts).
        costs: the cost model that was used.
        facts: everything else that the report shows, as JSON.
    """

    plan: Plan
    met: bool
    costs: Costs
    facts: dict[str, Any]


@dataclass(frozen=True)
class Progress:
    """What a search knows so far.

    Attributes:
        problem: what it chooses from.
        tried: verified plans, in order.
        plan: makes the plan of a choice.
    """

    problem: Problem
    tried: tuple[Tried, ...]
    plan: Callable[[Choice], Plan]


class Search:
    """One search.

    Args:
        pipe: a supported pipeline with one transformer, not enabled.
        settings: what is asked for.
        work: where finished units are kept.
        workers: the processes that share the work.
        candidates: patterns by name, `full` first; the default list of the grid if None.
        watch: called once the choices are known, and after each verified plan.

    Raises:
        TypeError: if the pipeline has no supported transformer, or more than one.
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
        watch: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self.pipe = pipe
        self.watch = watch
        self.settings = settings
        self.work = work
        self.workers = workers
        self.model = model_of(searched(pipe))
        workers.claim(work, "identity/origin", origin(pipe))
        self.facts = self.workers.first_only(work, "probe", self._probe)
        self.grid = TokenGrid(*self.facts["grid"])
        self.candidates = dict(candidates or default_candidates(self.grid))
        known = {name: pattern.to_dict() for name, pattern in self.candidates.items()}
        workers.claim(work, "identity/candidates", {"candidates": known})
        self.verifier = Verifier(
            pipe,
            settings.verification,
            settings.seed + len(settings.calibration),
            work,
            workers,
            settings.backend,
            settings.call,
        )

    def run(self) -> Outcome:
        """Do everything that is not done yet.

        Raises:
            ValueError: if the target cannot be met by any choice, or the costs that were given
                are of another device, grid or the like.
        """
        if self.settings.costs is not None:
            self._costs()  # refuses what does not fit before anything is measured
        found = self._calibrate()
        costs = self._costs()
        problem, densities = self._problems(found, costs)
        levels = found[0]["levels"]

        build = partial(build_plan, self.model, self.candidates, levels=levels)
        verified: dict[str, Tried] = {}

        def tell() -> None:
            self.watch(Progress(problem, tuple(verified.values()), build))

        def verify(choice: Choice, timed: bool = True) -> Tried:
            seen = self._verify(choice, build(choice), levels, costs, timed)
            one = Tried(choice, problem.seconds(choice), decibels(problem, choice), seen)
            verified[seen["key"]] = one
            tell()
            return one

        tell()

        def clock(choice: Choice) -> float:
            if self._predicts:
                return float(problem.dense.sum()) / problem.seconds(choice)
            return float(self._clock(build(choice), levels)["speedup"])

        target = self.settings.target
        attempt = partial(verify, timed=target.kind != "psnr")
        best, tried, met = balance(problem, target, attempt, clock, densities)
        if target.kind == "psnr":
            best = verify(best.choice)  # its passes were not timed yet
        baselines = []
        for name, choice in single_families(problem, list(self.candidates), best.seconds):
            simple = build(choice).to_dict()
            baselines.append(verify(choice).facts | {"name": name, "plan": simple})
        facts = {
            "target": asdict(target),
            "met": met,
            "met_by": "prediction" if self._predicts else "measurement",
            "grid": str(self.grid),
            "steps": len(levels),
            "levels": levels,
            "bands": band_starts(len(levels), self.settings.bands),
            "onset": np.mean([one["onset"] for one in found], axis=0).tolist(),
            "together": float(np.mean([one["together"] for one in found])),
            "errors": self._band_errors(problem, best.choice),
            "dense_seconds": float(problem.dense.sum()),
            "frontier": [
                {"seconds": problem.seconds(c), "decibels": decibels(problem, c)}
                for c in frontier(problem)
            ],
            "tried": [verified[one.found["key"]].facts for one in tried],
            "chosen": best.facts,
            "baselines": baselines,
            "density": densities.seconds(best.choice) / float(densities.dense.sum()),
            "cost_model_error": costs.error,
            "settings": self.settings.to_dict(),
        }
        return Outcome(
            replace(build(best.choice), provenance=provenance(self.pipe, self.settings, facts)),
            met,
            costs,
            facts,
        )

    @property
    def _predicts(self) -> bool:
        """Whether the target is one of speed and times are given, which are taken as true.

        What they predict leaves out the measuring of captured maps.
        """
        return self.settings.costs is not None and self.settings.target.kind == "speedup"

    def _probe(self) -> dict[str, Any]:
        settings = self.settings
        found = look(self.pipe, settings.calibration[0], settings.backend, **settings.call)
        return asdict(found) | {"grid": list(asdict(found.grid).values())}

    def _calibrate(self) -> list[dict[str, Any]]:
        settings = self.settings
        shares = [density(p, self.grid) for p in self.candidates.values()]
        calibration = Calibration(
            self.pipe,
            self.candidates,
            np.array(shares),
            settings.bands,
            lambda choice, levels: build_plan(self.model, self.candidates, choice, levels),
            self.work,
            settings.backend,
            settings.call,
        )
        keys = [f"prompt/{index}" for index in range(len(settings.calibration))]
        own = len(self.workers.missing(self.work, keys)[1])
        units = own * calibration.units(self.facts["steps"])

        def measure(key: str) -> dict[str, Any]:
            index = int(key.rsplit("/")[-1])
            prompt, seed = settings.calibration[index], settings.seed + index
            return calibration.measure(key, prompt, seed, bar.update)

        hidden = None if self.workers.first else True
        with tqdm(total=units, desc="calibrate", unit="run", disable=hidden) as bar:
            return list(self.workers.share(self.work, keys, measure).values())

    def _costs(self) -> Costs:
        """The cost model: given, or measured by the first process."""
        if self.settings.costs is not None:
            costs = Costs.from_dict(self.settings.costs)
            here = conditions(self.pipe, self.model, self.grid, self.settings.backend)
            costs.check(here, tuple(self.candidates), self.facts["passes"])
            return costs
        return Costs.from_dict(self.workers.first_only(self.work, "costs", self._time))

    def _time(self) -> dict[str, Any]:
        settings = self.settings
        costs = measure_costs(
            self.pipe,
            self.model,
            self.candidates,
            self.grid,
            self.facts["passes"],
            settings.calibration[0],
            settings.backend,
            settings.call,
        )
        return costs.to_dict()

    def _problems(
        self, found: Sequence[Mapping[str, Any]], costs: Costs
    ) -> tuple[Problem, Problem]:
        """What to choose from, in seconds and in shares of dense attention."""
        errors = np.mean([one["errors"] for one in found], axis=0)
        errors = errors * gains(found)[:, :, None, None]
        layers, heads = errors.shape[1:3]
        steps = len(found[0]["levels"])
        starts = band_starts(steps, len(errors))
        passes = np.diff([*starts, steps]) * float(costs.passes)
        times = np.outer(passes, costs.heads)
        groups = [Group(np.array(costs.pooled), passes * costs.pooling)]
        if costs.first and errors.size <= MOST_SHARED:
            every = range(len(costs.names))
            groups += [Group(np.array(every) == one, costs.first * times[:, one]) for one in every]
        elif costs.first:
            times *= 1 + costs.first
        problem = Problem(
            errors,
            times,
            passes * (costs.other + layers * costs.layer),
            passes * costs.dense_pass,
            tuple(group for group in groups if group.members.any() and group.seconds.any()),
        )
        shares = [density(p, self.grid) for p in self.candidates.values()]
        densities = Problem(
            errors,
            np.outer(passes, shares),
            np.zeros(len(passes)),
            passes * layers * heads,
            unit="density",
        )
        return problem, densities

    def _verify(
        self, choice: Choice, plan: Plan, levels: Sequence[float], costs: Costs, timed: bool
    ) -> dict[str, Any]:
        """Runs of a choice's plan. If timed, its attention's time too, predicted and measured.

        `speedup` is that of passes if timed, else that of the runs.
        """
        found = self.verifier.check(plan)
        if not timed:
            return found | {"speedup": found["run_speedup"]}
        starts = np.array(band_starts(len(levels), len(choice)))
        expected = [
            costs.attention(choice[band])
            for step, use in enumerate(steps_run(plan, levels))
            if use not in (DENSE, MEASURING)
            for band in [int((starts <= step).sum()) - 1]
        ]
        predicted = {"predicted_attention_seconds": float(np.mean(expected or [0.0]))}
        return found | self._clock(plan, levels) | predicted

    def _clock(self, plan: Plan, levels: Sequence[float]) -> dict[str, Any]:
        """Passes of a plan, timed in turns with dense ones by the first process."""
        settings = self.settings

        def timed() -> dict[str, Any]:
            return time_passes(
                self.pipe,
                plan,
                levels,
                settings.calibration[0],
                settings.backend,
                passes=self.facts["passes"],
                **settings.call,
            )

        key = f"{plan_key(plan)}/passes"
        return dict(self.workers.first_only(self.work, key, timed))

    def _band_errors(self, problem: Problem, choice: Choice) -> list[float]:
        """Predicted squared error that each band adds."""
        bands = range(len(choice))
        one = [np.where(np.arange(len(choice))[:, None, None] == b, choice, -1) for b in bands]
        return [problem.error(band) for band in one]
