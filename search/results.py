"""What a search measures of plans, and what it ends with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ajour.pipelines.measures import MEASURES, explain

if TYPE_CHECKING:
    from ajour.grid import TokenGrid
    from ajour.plan import Plan
    from ajour.search.bands import Bands
    from ajour.search.settings import Settings
    from ajour.search.solve.joint import RunChoice
    from ajour.search.timing.costs import Costs
    from ajour.search.timing.passes import PassTimes
    from ajour.search.verify.runs import Quality

PLAIN = ("met", "met_by", "onset", "band_errors", "dense_seconds", "density")
"""Fields of an outcome that are figures as they are."""


@dataclass(frozen=True, eq=False)
class VerifiedPlan:
    """A plan that was run on the verification prompts.

    Attributes:
        name: of the pattern, for a plan with one pattern for all heads; otherwise empty.
        plan: the plan.
        choice: what the plan assigns.
        key: of the plan's units of work and videos.
        seconds: predicted, of denoising.
        decibels: predicted signal-to-noise ratio, up to a constant.
        quality: of its videos.
        times: of its passes; None if they were not timed.
        predicted_attention_seconds: in a mean sparse pass; None if passes were not timed.
    """

    name: str
    plan: Plan
    choice: RunChoice
    key: str
    seconds: float
    decibels: float
    quality: Quality
    times: PassTimes | None = None
    predicted_attention_seconds: float | None = None

    @property
    def psnr_db(self) -> float:
        """Mean PSNR against dense attention."""
        return self.quality.psnr_db

    @property
    def speedup(self) -> float:
        """Of denoising: measured on single passes, or on whole runs if passes were not timed."""
        return self.quality.run_speedup if self.times is None else self.times.speedup

    def to_dict(self) -> dict[str, Any]:
        """Predicted and measured figures as plain JSON types, without the choice."""
        predicted = {"key": self.key, "seconds": self.seconds, "decibels": self.decibels}
        measured = self.quality.to_dict() | {"speedup": self.speedup}
        if self.times is None:
            return predicted | measured
        attention = {"predicted_attention_seconds": self.predicted_attention_seconds}
        return predicted | measured | asdict(self.times) | attention


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a search ends with.

    Attributes:
        plan: the chosen plan, with its provenance.
        settings: of the search.
        met: whether the plan reaches the target, its bounds hold, and it is faster than dense
            attention.
        met_by: `measurement`, or `prediction` where a speed-up follows from given costs.
        costs: the cost model.
        grid: the token grid.
        bands: of the run.
        onset: relative squared error of the final latents if a trial plan holds from each band on.
        band_errors: predicted squared error that the chosen plan adds in each band.
        dense_seconds: predicted, of a dense run.
        frontier: (seconds, decibels) of the best choices, predicted.
        verified: plans that were verified to reach the target, in order.
        chosen: the best of them.
        baselines: plans with one pattern for all heads.
        density: of the plan, over all steps.
    """

    plan: Plan
    settings: Settings
    met: bool
    met_by: str
    costs: Costs
    grid: TokenGrid
    bands: Bands
    onset: tuple[float, ...]
    band_errors: tuple[float, ...]
    dense_seconds: float
    frontier: tuple[tuple[float, float], ...]
    verified: tuple[VerifiedPlan, ...]
    chosen: VerifiedPlan
    baselines: tuple[VerifiedPlan, ...]
    density: float

    @property
    def rejected(self) -> list[VerifiedPlan]:
        """Verified plans that were not chosen."""
        return [plan for plan in self.verified if plan.key != self.chosen.key]

    @property
    def predicted_speedup(self) -> float:
        """Predicted speed-up of the chosen plan."""
        return self.dense_seconds / self.chosen.seconds

    @property
    def dense_is_best(self) -> bool:
        """Whether dense attention is the answer: no plan of the target quality is faster."""
        target, chosen = self.settings.target, self.chosen
        if target.kind != "psnr" or chosen.psnr_db < target.value:
            return False
        dense = not chosen.plan.assignments and not chosen.plan.schedule.reuses
        return dense or chosen.speedup <= 1

    @property
    def conclusion(self) -> str:
        """Whether the target is met, in words; otherwise the bounds that are missed."""
        if self.dense_is_best:
            target = self.settings.target
            return (
                f"dense attention is the answer: no plan of {target} is faster than dense attention"
            )
        if missed := self.settings.target.bounds.missed(self.chosen.quality):
            figures = (f"{name} {MEASURES[name].show(value)}" for name, value in missed.items())
            return f"missed: {', '.join(figures)}"
        word = "met" if self.met else "missed"
        if self.met_by == "measurement":
            return word
        return f"{word} by prediction ({self.predicted_speedup:.2f}x)"

    @property
    def bounds(self) -> dict[str, dict[str, Any]]:
        """By bound figure: `at_most`, `value` of the chosen plan, and whether it is `met`."""
        bounds, quality = self.settings.target.bounds, self.chosen.quality
        missed = bounds.missed(quality)
        return {
            name: {"at_most": limit, "value": getattr(quality, name), "met": name not in missed}
            for name, limit in bounds.to_dict().items()
        }

    def to_dict(self) -> dict[str, Any]:
        """The figures of the report as plain JSON types."""
        return {
            "target": self.settings.target.to_dict(),
            "bounds": self.bounds,
            "measures": explain(MEASURES),
            **{name: getattr(self, name) for name in PLAIN},
            "dense_is_best": self.dense_is_best,
            "grid": str(self.grid),
            "steps": len(self.bands.noise_levels),
            "noise_levels": self.bands.noise_levels,
            "bands": self.bands.starts,
            "frontier": [
                {"seconds": seconds, "decibels": decibels} for seconds, decibels in self.frontier
            ],
            "verified": [plan.to_dict() for plan in self.verified],
            "chosen": self.chosen.to_dict(),
            "baselines": [
                plan.to_dict() | {"name": plan.name, "plan": plan.plan.to_dict()}
                for plan in self.baselines
            ],
            "cost_model_error": self.costs.error,
            "settings": self.settings.to_dict(),
        }


def missed(outcome: Outcome) -> str:
    """What to say if no plan reaches the target."""
    chosen = outcome.chosen
    bounds = outcome.settings.target.bounds.missed(chosen.quality)
    figures = "".join(f", {name} {MEASURES[name].show(value)}" for name, value in bounds.items())
    by = "" if outcome.met_by == "measurement" else " by prediction from the given costs"
    return (
        f"no plan reaches {outcome.settings.target}{by}: the best plan has {chosen.psnr_db:.2f} dB "
        f"at {chosen.speedup:.2f}x{figures}, measured"
    )
