"""One prompt's share of the calibration: its errors, and what going sparse early would cost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.patterns import Captured
from ajour.pipelines.enable import session_of, sparse
from ajour.search.calibrate import Meter, band_starts, full_plan
from ajour.search.solve import DENSE_BAND, Problem, solve
from ajour.search.trajectory import Trajectory, latents, relative_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from ajour.patterns import Pattern
    from ajour.plan import Plan
    from ajour.search.solve import Choice
    from ajour.search.work import Work

TRIAL_DENSITY = 0.3
"""Mean density of the trial choice whose effect on the result is measured."""

GROUPS = 8
"""Groups of layers whose influence is told apart."""


class Calibration:
    """Measures prompts on a pipeline.

    Args:
        pipe: a supported pipeline with one transformer, not enabled.
        candidates: patterns by name, C of them.
        densities: (C,), on the pipeline's grid.
        bands: number of bands of steps.
        plan: makes a plan of a choice.
        work: where finished units are kept.
        backend: the operator's backend; None chooses.
        call: further arguments of the pipeline's call.
    """

    def __init__(
        self,
        pipe: Any,
        candidates: Mapping[str, Pattern],
        densities: NDArray[np.float64],
        bands: int,
        plan: Callable[[Choice, Sequence[float]], Plan],
        work: Work,
        backend: str | None,
        call: Mapping[str, Any],
    ) -> None:
        self.pipe = pipe
        self.candidates = candidates
        self.densities = densities
        self.bands = bands
        self.plan = plan
        self.work = work
        self.backend = backend
        self.call = call

    def units(self, steps: int) -> int:
        """Parts of a prompt's measurement, for a progress bar."""
        return 1 + len(probed_steps(steps)) + len(band_starts(steps, self.bands))

    def measure(
        self, key: str, prompt: str, seed: int, tick: Callable[[], Any] = lambda: None
    ) -> dict[str, Any]:
        """All of one prompt.

        Args:
            key: of the prompt's unit; parts of it are kept under longer keys.
            prompt: the prompt.
            seed: seed of the initial noise.
            tick: called after each part.

        Returns:
            `errors`: (bands, layers, heads, C); `levels`: noise level of each step; `influence`:
            (probed steps, layers), relative squared error of the transformer's output per unit of
            a layer's summed head errors; `together`: (probed steps,), that error with the trial
            choice in all layers over the sum of those with it in each group of layers; `onset`:
            relative squared error of the final latents if the trial choice holds from each band to
            the end; `trial`: (bands, layers), the trial choice's sums of errors.
        """
        trajectory = Trajectory(self.pipe)
        exact: list[torch.Tensor] = []

        def run_dense() -> dict[str, Any]:
            with sparse(self.pipe, full_plan(self.pipe.transformer), backend=self.backend):
                session = session_of(self.pipe)
                meter = Meter(session, list(self.candidates.values()), self.bands)
                tracker = session.tracker
                with trajectory.record(lambda: tracker.index in probed_steps(len(tracker.levels))):
                    exact.append(latents(self.pipe, prompt, seed, **self.call))
                return {"errors": rounded(meter.errors()), "levels": rounded(tracker.levels)}

        def once(part: str, compute: Callable[[], Any]) -> Any:
            value = self.work.once(f"{key}/{part}", compute)
            tick()
            return value

        found = dict(once("errors", run_dense))
        errors, levels = np.array(found["errors"]), found["levels"]
        trial = self._trial(errors)
        sums = np.take_along_axis(errors, trial[..., None], -1)[..., 0].sum(axis=-1)

        def again() -> None:
            if not exact:
                run_dense()

        def influence(number: int) -> dict[str, Any]:
            again()
            step = probed_steps(len(levels))[number]
            band = sum(start <= step for start in band_starts(len(levels), len(trial))) - 1
            passes = len(trajectory.outputs) // len(levels)
            call = trajectory.calls[number * passes]  # of the step's passes one tells enough
            ratios, total = np.zeros(len(sums[band])), 0.0
            for group in layer_groups(len(ratios)):
                change = self._change(trajectory, call, trial[band], group)
                ratios[group] = change / max(sums[band][group].sum(), 1e-12)
                total += change
            whole = self._change(trajectory, call, trial[band], np.arange(len(ratios)))
            return {
                "layers": rounded(ratios), "together": float(rounded(whole / max(total, 1e-12)))
            }  # fmt: skip

        def onset(band: int) -> float:
            again()
            choice = trial.copy()
            choice[:band] = DENSE_BAND
            share = band_starts(len(levels), len(trial))[band] / len(levels)
            plan = self.plan(choice, levels)
            with sparse(self.pipe, plan, backend=self.backend), trajectory.replay(share):
                changed = latents(self.pipe, prompt, seed, **self.call)
            return float(rounded(relative_error(changed, exact[0])))

        found["trial"] = rounded(sums)
        probed = [
            once(f"influence/{number}", partial(influence, number))
            for number in range(len(probed_steps(len(levels))))
        ]
        found["influence"] = [one["layers"] for one in probed]
        found["together"] = [one["together"] for one in probed]
        found["onset"] = [once(f"onset/{band}", partial(onset, band)) for band in range(len(trial))]
        return found

    def _change(
        self, trajectory: Trajectory, call: Any, trial: Choice, layers: NDArray[np.int64]
    ) -> float:
        """What the trial choice in some layers alone does to the transformer's output."""
        choice = np.zeros_like(trial)  # `full` everywhere else
        choice[layers] = trial[layers]
        with sparse(self.pipe, self.plan(choice[None], [1.0]), backend=self.backend):
            return trajectory.change([call])

    def _trial(self, errors: NDArray[np.float64]) -> Choice:
        """The least sum of errors at the trial density; never a dense band, nothing captured.

        What it does is measured on single passes, where no dense step goes before.
        """
        fixed = [
            index
            for index, pattern in enumerate(self.candidates.values())
            if not isinstance(pattern, Captured)
        ]
        bands, layers, heads, _ = errors.shape
        costs = np.broadcast_to(self.densities[fixed], (bands, len(fixed)))
        never = np.full(bands, 2.0 * layers * heads)
        problem = Problem(errors[..., fixed], costs, np.zeros(bands), never)
        least = float(costs.min())
        choice = solve(problem, max(TRIAL_DENSITY, least) * bands * layers * heads)
        return np.array(fixed)[choice]


def layer_groups(layers: int) -> list[NDArray[np.int64]]:
    """Neighbouring layers whose influence is measured together: at most `GROUPS` groups."""
    return np.array_split(np.arange(layers), min(layers, GROUPS))


def probed_steps(steps: int) -> list[int]:
    """The steps at which each layer's influence is measured: one early, one late."""
    return sorted({steps // 4, 3 * steps // 4})


def gains(found: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """Squared error of the result per unit of a head's error: (bands, layers).

    A layer counts by its influence on the transformer's output at the nearest probed step, a band
    by what the result loses from going sparse one band earlier; over the prompts' means.

    Args:
        found: what `Calibration.measure` returned, of one prompt each.
    """
    onset = np.mean([one["onset"] for one in found], axis=0)
    steps = len(found[0]["levels"])
    starts = np.array([*band_starts(steps, len(onset)), steps])
    middles = (starts[1:] + starts[:-1]) // 2
    nearest = np.abs(middles[:, None] - np.array(probed_steps(steps))).argmin(axis=1)
    probed = np.log(np.maximum([one["influence"] for one in found], 1e-9)).mean(axis=0)
    influence = np.exp(probed)[nearest]
    trial = (np.mean([one["trial"] for one in found], axis=0) * influence).sum(axis=1)
    monotone = np.maximum.accumulate(onset[::-1])[::-1]
    added = monotone - np.append(monotone[1:], 0.0)
    floor = 1e-3 * monotone / len(onset)  # no band is free
    share = np.maximum(added, floor) / np.maximum(trial, 1e-12)
    return np.asarray(share[:, None] * influence)


def rounded(values: Any, digits: int = 5) -> Any:
    """Numbers with a few significant digits: enough, and the same however threads added them up."""
    flat = [float(f"{float(x):.{digits}g}") for x in np.asarray(values).flat]
    return np.array(flat).reshape(np.shape(values)).tolist()
