"""Calibration on prompts: errors of all candidates, and how much they count for the result."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ajour.patterns import Captured, Full
from ajour.search.bands import Bands
from ajour.search.calibrate.errors import ErrorMeter
from ajour.search.calibrate.trajectory import Trajectory, relative_error
from ajour.search.setup import uniform_plan
from ajour.search.solve.knapsack import solve
from ajour.search.solve.plan import build_plan
from ajour.search.solve.problem import DENSE_BAND, Problem
from ajour.search.solve.reuse import Changes
from ajour.search.units import array, entries
from ajour.search.work import rounded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from ajour.patterns import Pattern
    from ajour.search.calibrate.trajectory import Call
    from ajour.search.setup import Setup
    from ajour.search.solve.problem import Choice
    from ajour.search.solve.reuse import Gap

TRIAL_DENSITY = 0.3
"""Mean density of the trial choice whose effect on the result is measured."""

GROUPS = 8
"""Most groups of layers whose influence is measured, each group by itself."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What was measured on one prompt, as arrays.

    Attributes:
        errors: (bands, layers, heads, C), of every candidate on every head.
        trial: (bands, layers), sums of errors of the heads under the trial choice.
        influence: (probed steps, layers), relative squared error of a transformer's output per
            unit of a layer's summed head errors.
        onset: (bands,), relative squared error of the final latents if the trial choice holds from
            each band to the end.
        changes: (steps, steps), inner products of changes from step to step, see `Changes`.
        reuse: (bands,), relative squared error of the final latents if the middle step of a band
            is reused alone; 0 where that is the first step of the run or of a transformer.
    """

    errors: NDArray[np.float64]
    trial: NDArray[np.float64]
    influence: NDArray[np.float64]
    onset: NDArray[np.float64]
    changes: NDArray[np.float64]
    reuse: NDArray[np.float64]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {field.name: rounded(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls, data: Any, shape: tuple[int, ...], probed: int, steps: int) -> Calibration:
        """From the output of `to_dict`.

        Args:
            data: JSON.
            shape: (bands, layers, heads, C).
            probed: the number of probed steps.
            steps: the number of steps.

        Raises:
            ValueError: if the data has another form.
        """
        bands, layers = shape[:2]
        data = entries(data, [field.name for field in fields(cls)])
        return cls(
            errors=array(data["errors"], shape),
            trial=array(data["trial"], (bands, layers)),
            influence=array(data["influence"], (probed, layers)),
            onset=array(data["onset"], (bands,)),
            changes=array(data["changes"], (steps, steps)),
            reuse=array(data["reuse"], (bands,)),
        )


class DenseRun(NamedTuple):
    """One dense run: errors of all candidates, final latents, recording, changes of outputs."""

    errors: NDArray[np.float64]
    latents: torch.Tensor
    trajectory: Trajectory
    changes: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibrator:
    """Measures prompts on a pipeline, with candidates by name and their densities, (C,)."""

    setup: Setup
    candidates: Mapping[str, Pattern]
    densities: NDArray[np.float64]
    bands: Bands

    @property
    def steps(self) -> list[int]:
        """The probed steps."""
        return probed_steps(self.bands)

    @property
    def units(self) -> int:
        """Units of work of a prompt, for a progress bar."""
        return 2 + len(self.steps) + 2 * len(self.bands.starts)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the errors: (bands, layers, heads, C)."""
        model = self.setup.model
        return len(self.bands.starts), model["layers"], model["heads"], len(self.candidates)

    def read(self, data: Any) -> Calibration:
        """A calibration from JSON; errors are those of `Calibration.from_dict`."""
        return Calibration.from_dict(
            data, self.shape, len(self.steps), len(self.bands.noise_levels)
        )

    def measure(
        self,
        prompt: str,
        seed: int,
        unit: Callable[[str, Sequence[int], Callable[[], Any]], NDArray[np.float64]],
    ) -> Calibration:
        """Measure one prompt.

        `unit` gives the value of a unit of work by its key and shape, computed if it is not known
        yet.
        """
        dense = cache(partial(self._run_dense, prompt, seed))
        errors = unit("errors", self.shape, lambda: rounded(dense().errors))
        steps = len(self.bands.noise_levels)
        choice = self._trial_choice(errors)
        trial = np.take_along_axis(errors, choice[..., None], -1)[..., 0].sum(axis=-1)

        def influence(number: int) -> Any:
            step, trajectory = self.steps[number], dense().trajectory
            band = self.bands.of(step)
            call = next(call for call in trajectory.calls if call.step == step)  # one is enough
            ratios = np.zeros(trial.shape[1])
            for group in layer_groups(len(ratios)):
                change = self._change(trajectory, call, choice[band], group)
                ratios[group] = change / max(trial[band][group].sum(), 1e-12)
            return rounded(ratios)

        def onset(band: int) -> Any:
            late = choice.copy()
            late[:band] = DENSE_BAND
            plan = build_plan(self.setup.model, self.candidates, late, self.bands)
            trajectory, exact = dense().trajectory, dense().latents
            with self.setup.enabled(plan), trajectory.replay(self.bands.starts[band]):
                return rounded(relative_error(self._latents(prompt, seed), exact))

        changes = unit("changes", (steps, steps), lambda: rounded(dense().changes, 8))

        def reuse(band: int) -> Any:
            step = self.bands.middles[band]
            table = changes_of(changes, self.bands)
            if not table.history(step):
                return 0.0
            gap = one_step(table, step)
            heads = np.full(errors.shape[:3], DENSE_BAND)
            plan = build_plan(self.setup.model, self.candidates, heads, self.bands, [gap])
            trajectory, exact = dense().trajectory, dense().latents
            with self.setup.enabled(plan), trajectory.replay(step):
                return rounded(relative_error(self._latents(prompt, seed), exact))

        bands = range(len(trial))
        influences = [
            unit(f"influence/{i}", trial.shape[1:], partial(influence, i))
            for i in range(len(self.steps))
        ]
        onsets = [unit(f"onset/{band}", (), partial(onset, band)) for band in bands]
        reuses = [unit(f"reuse/{band}", (), partial(reuse, band)) for band in bands]
        return Calibration(
            errors, trial, np.array(influences), np.array(onsets), changes, np.array(reuses)
        )

    def _latents(self, prompt: str, seed: int) -> torch.Tensor:
        return self.setup.latents(prompt, seed, len(self.bands.noise_levels))

    def _run_dense(self, prompt: str, seed: int) -> DenseRun:
        trajectory = Trajectory(self.setup.pipe)
        with (
            self.setup.enabled(uniform_plan(self.setup.transformer, Full())) as session,
            ExitStack() as listening,
        ):
            meter = ErrorMeter(session, list(self.candidates.values()), self.bands.middles)
            for runtime in session.runtimes:
                listening.enter_context(runtime.listen(meter))
            with trajectory.record(self.steps):
                latents = self._latents(prompt, seed)
            changes = trajectory.changes(latents)
            return DenseRun(meter.errors(), latents, trajectory, changes)

    def _change(
        self, trajectory: Trajectory, call: Call, trial: Choice, layers: NDArray[np.int64]
    ) -> float:
        """Change of the transformer's output by the trial choice in some layers alone."""
        choice = np.zeros_like(trial)  # `full` everywhere else
        choice[layers] = trial[layers]
        plan = build_plan(self.setup.model, self.candidates, choice[None], Bands((1.0,), 1))
        (name,) = plan.assignments
        with (
            self.setup.enabled(plan) as session,
            session.runtime_of(call.transformer).run_as(name),
        ):
            return trajectory.change(call)

    def _trial_choice(self, errors: NDArray[np.float64]) -> Choice:
        """The choice of least error at the trial density, without dense bands.

        It has no captured patterns: its effect is measured on single passes, and those have no
        dense step before them to measure maps in.
        """
        usable = [
            index
            for index, pattern in enumerate(self.candidates.values())
            if not isinstance(pattern, Captured)
        ]
        bands, layers, heads, _ = errors.shape
        costs = np.broadcast_to(self.densities[usable], (bands, len(usable)))
        never_dense = np.full(bands, 2.0 * layers * heads)
        problem = Problem(errors[..., usable], costs, np.zeros(bands), never_dense)
        density = max(TRIAL_DENSITY, float(costs.min()))
        return np.array(usable)[solve(problem, density * bands * layers * heads)]


def layer_groups(layers: int) -> list[NDArray[np.int64]]:
    """Neighbouring layers whose influence is measured together: at most `GROUPS` groups."""
    return np.array_split(np.arange(layers), min(layers, GROUPS))


def probed_steps(bands: Bands) -> list[int]:
    """The steps that each layer's influence is measured in: one early, one late of each model."""
    return sorted(
        {start + part * (end - start) // 4 for start, end in bands.stages for part in (1, 3)}
    )


def weighted_errors(calibrations: Sequence[Calibration], bands: Bands) -> NDArray[np.float64]:
    """Mean errors over the prompts, in a unit that adds up: (bands, layers, heads, C)."""
    errors = np.mean([calibration.errors for calibration in calibrations], axis=0)
    return np.asarray(errors * weights(calibrations, bands)[:, :, None, None])


def weights(calibrations: Sequence[Calibration], bands: Bands) -> NDArray[np.float64]:
    """Squared error of the result per unit of a head's error: (bands, layers).

    A layer counts by its influence on its transformer's output at the nearest probed step, a band
    by what the result loses from going sparse one band earlier; both are means over the prompts.
    """
    onset = np.mean([calibration.onset for calibration in calibrations], axis=0)
    probed = probed_steps(bands)
    nearest = [
        min(
            range(len(probed)),
            key=lambda i: (
                bands.stage_of(probed[i]) != bands.stage_of(step),
                abs(probed[i] - step),
            ),
        )
        for step in bands.middles
    ]
    influences = np.maximum([calibration.influence for calibration in calibrations], 1e-9)
    influence = np.exp(np.log(influences).mean(axis=0))[nearest]
    trials = np.mean([calibration.trial for calibration in calibrations], axis=0)
    trial = (trials * influence).sum(axis=1)
    monotone = np.maximum.accumulate(onset[::-1])[::-1]
    added = monotone - np.append(monotone[1:], 0.0)
    floor = 1e-3 * monotone / len(onset)  # no band is free
    share = np.maximum(added, floor) / np.maximum(trial, 1e-12)
    return np.asarray(share[:, None] * influence)


def one_step(changes: Changes, step: int) -> Gap:
    """The gap of one reused step after computed steps of the same transformer."""
    return changes.gap(changes.history(step), 1)


def changes_of(products: NDArray[np.float64], bands: Bands) -> Changes:
    """Changes of the output in a run with these bands."""
    return Changes(products, bands.noise_levels, bands.cuts)


def mean_changes(calibrations: Sequence[Calibration], bands: Bands) -> Changes:
    """Changes of the output, mean over the prompts."""
    products = np.mean([calibration.changes for calibration in calibrations], axis=0)
    return changes_of(np.asarray(products), bands)


def reuse_gains(calibrations: Sequence[Calibration], bands: Bands) -> NDArray[np.float64]:
    """How much an error in a step's output grows until the end of the run: (steps,).

    It is measured for one reused step per band; steps between have values between. Geometric means
    over the prompts.
    """
    middles = bands.middles
    logs: dict[int, list[float]] = {}
    for calibration in calibrations:
        changes = changes_of(calibration.changes, bands)
        for step, measured in zip(middles, calibration.reuse, strict=True):
            if measured > 0:
                predicted = max(one_step(changes, step).error, 1e-12)
                logs.setdefault(step, []).append(float(np.log(measured / predicted)))
    steps = np.arange(len(bands.noise_levels))
    if not logs:
        return np.ones(len(steps))
    known = sorted(logs)
    return np.exp(np.interp(steps, known, [np.mean(logs[step]) for step in known]))
