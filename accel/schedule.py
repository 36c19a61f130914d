"""Schedule: which assignment of patterns is in force at which noise level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ajour.quoting import listed, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

DENSE = "dense"
"""The assignment that means stock attention."""

REUSE = "reuse"
"""The assignment that means that the transformer does not run: see `Phase`."""

PAST = 3
"""Outputs of computed steps that a reused step can follow from."""

STEEPEST = 8.0
"""Bound of a slope's absolute value."""

MOST_PHASES = 1000
"""Most phases of a schedule."""

MOST_STEPS = 10**6
"""Most steps from one dense step to the next."""


@dataclass(frozen=True)
class Phase:
    """One phase of the denoising trajectory.

    Args:
        from_noise_level: the phase begins at this noise level and ends where the next one begins.
        assignment: the name of an assignment of the plan, `dense`, or `reuse`: the transformer does
            not run, and its output follows from those of the last computed steps.
        dense_every: every `dense_every`-th step of the phase runs dense, which repairs drift and
            measures captured patterns again; 0 for no such steps.
        slopes: for `reuse`, how much of the last changes goes on, the latest change first. The
            output is the last computed output, plus the distance in noise level times the sum of
            `slopes[k]` times the k-th last rate of change between computed outputs. (1.0,) is a
            line through the last two, () the last output as it is. At most two. None: one slope,
            measured in the run: the share of the change before that went on in the last change.
    """

    from_noise_level: float
    assignment: str
    dense_every: int = 0
    slopes: tuple[float, ...] | None = None

    def to_dict(self) -> dict[str, object]:
        """The phase as JSON."""
        data: dict[str, object] = {
            "from_noise_level": self.from_noise_level,
            "assignment": self.assignment,
        }
        if self.dense_every:
            data["dense_every"] = self.dense_every
        if self.slopes is not None:
            data["slopes"] = list(self.slopes)
        return data


@dataclass(frozen=True)
class Schedule:
    """Phases by noise level, so that 4-step and 50-step runs both work.

    The noise level of x = s * data + n * noise is n / (s + n): 1 is pure noise, 0 is clean. For
    flow matching it is sigma itself.

    Args:
        phases: noisiest first; the first must start at 1.0, and cannot be `reuse`.

    Raises:
        ValueError: if phases are missing, too many, out of range or not strictly falling, or if the
            first phase reuses steps.
    """

    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("a schedule needs at least one phase")
        if len(self.phases) > MOST_PHASES:
            raise ValueError(f"a schedule has at most {MOST_PHASES} phases, got {len(self.phases)}")
        bounds = [phase.from_noise_level for phase in self.phases]
        for bound in bounds:
            if isinstance(bound, bool) or not isinstance(bound, int | float) or not 0 <= bound <= 1:
                raise ValueError(f"a phase's noise level must be from 0 to 1, got {quoted(bound)}")
        for phase in self.phases:
            rate = phase.dense_every
            number = isinstance(rate, int) and not isinstance(rate, bool)
            if not number or rate == 1 or not 0 <= rate <= MOST_STEPS:
                raise ValueError(
                    "a phase's dense_every must be 0 or the steps from one dense step to the next, "
                    f"2 to {MOST_STEPS}, got {quoted(rate)}"
                )
            if rate and phase.assignment == REUSE:
                raise ValueError(
                    f"a phase that reuses steps has no dense_every, got {quoted(rate)}"
                )
            _check_slopes(phase)
        if self.phases[0].assignment == REUSE:
            raise ValueError(
                "the first phase cannot reuse a step, as none was computed; begin with dense or an "
                "assignment"
            )
        if bounds[0] != 1:
            raise ValueError(
                f"the first phase must start at noise level 1.0, got {quoted(bounds[0])}"
            )
        if any(b >= a for a, b in zip(bounds, bounds[1:], strict=False)):
            raise ValueError(
                f"phases must go from noisy to clean, got noise levels {listed(map(str, bounds))}"
            )

    @property
    def assignments(self) -> tuple[str, ...]:
        """The assignments that phases use, each once, in their order."""
        names = dict.fromkeys(phase.assignment for phase in self.phases)
        return tuple(name for name in names if name not in (DENSE, REUSE))

    def reusing(self, noise_levels: Sequence[float], reused: Sequence[int]) -> Schedule:
        """The schedule that also reuses some steps of a run, with measured slopes.

        Phases begin halfway between steps.
        """
        names = list(self.steps(noise_levels))
        for step in reused:
            names[step] = REUSE
        phases = []
        for step, name in enumerate(names):
            if step == 0 or names[step - 1] != name:
                edge = 1.0 if step == 0 else (noise_levels[step - 1] + noise_levels[step]) / 2
                phases.append(Phase(round(edge, 6), name))
        return Schedule(tuple(phases))

    def without_reuse(self) -> Schedule:
        """The schedule that computes every step."""
        return Schedule(tuple(phase for phase in self.phases if phase.assignment != REUSE))

    @property
    def reuses(self) -> bool:
        """Whether steps are reused."""
        return any(phase.assignment == REUSE for phase in self.phases)

    def steps(self, noise_levels: Sequence[float], first: int = 0) -> tuple[str, ...]:
        """What every step uses: an assignment, `dense` or `reuse`.

        A step in a phase of `reuse` is computed by the phase before if that phase has not computed
        any step yet, or if the last computed step is farther before the phase than the phase is
        wide: that happens in runs of fewer steps than the plan was made for.

        Args:
            noise_levels: of all steps of the run, in their order.
            first: index of the first step that the run computes.
        """
        names: list[str] = []
        since: dict[Phase, int] = {}
        computed: float | None = None
        for index, level in enumerate(noise_levels):
            phase = self._phase(level)
            name = phase.assignment
            since[phase] = since.get(phase, 0) + 1
            if phase.dense_every and since[phase] % phase.dense_every == 0:
                name = DENSE
            if name == REUSE and (
                computed is None
                or self._computing(computed) is not self._computing(level)
                or computed > self._farthest(phase)
            ):
                name = self.at(level)
            if name != REUSE and index >= first:
                computed = level
            names.append(name)
        return tuple(names)

    def at(self, noise_level: float) -> str:
        """What a step that is computed uses at a noise level, without `dense_every`.

        Where steps are reused, it is what the phase before them uses.
        """
        return self._computing(noise_level).assignment

    def slopes_at(self, noise_level: float) -> tuple[float, ...] | None:
        """The slopes of the phase at a noise level."""
        return self._phase(noise_level).slopes

    def _computing(self, noise_level: float) -> Phase:
        """The phase by which a step at a noise level is computed if it is not reused."""
        begun = self.phases[: self.phases.index(self._phase(noise_level)) + 1]
        return [phase for phase in begun if phase.assignment != REUSE][-1]

    def _farthest(self, phase: Phase) -> float:
        """Highest noise level that a step of a phase can be reused from."""
        ends = [*(other.from_noise_level for other in self.phases[1:]), 0.0]
        return 2 * phase.from_noise_level - ends[self.phases.index(phase)] + 1e-6

    def _phase(self, noise_level: float) -> Phase:
        begun = [phase for phase in self.phases if noise_level <= phase.from_noise_level]
        return begun[-1] if begun else self.phases[0]


def _check_slopes(phase: Phase) -> None:
    """Raise ValueError unless a phase's slopes are a few moderate numbers, for `reuse` alone."""
    slopes = phase.slopes
    if slopes is None:
        return
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in slopes)
    if not numbers or len(slopes) >= PAST or not all(abs(x) <= STEEPEST for x in slopes):
        raise ValueError(
            f"a phase's slopes are at most {PAST - 1} numbers from {-STEEPEST:g} to {STEEPEST:g}, "
            f"got {quoted(list(slopes))}"
        )
    if phase.assignment != REUSE:
        raise ValueError(f"slopes are for reused steps, got them for {quoted(phase.assignment)}")
