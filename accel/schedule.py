"""Schedule: which assignment of patterns is in force at which noise level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ajour.quoting import listed, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

DENSE = "dense"
"""The assignment that means stock attention."""

MOST_PHASES = 1000
"""Most phases of a schedule."""

MOST_STEPS = 10**6
"""Most steps from one dense step to the next."""


@dataclass(frozen=True)
class Phase:
    """One phase of the denoising trajectory.

    Args:
        from_noise_level: the phase begins at this noise level and ends where the next one begins.
        assignment: the name of an assignment of the plan, or `dense`.
        dense_every: every `dense_every`-th step of the phase runs dense, which repairs drift and
            measures captured patterns again; 0 for no such steps.
    """

    from_noise_level: float
    assignment: str
    dense_every: int = 0

    def to_dict(self) -> dict[str, object]:
        """The phase as JSON."""
        data = {"from_noise_level": self.from_noise_level, "assignment": self.assignment}
        return data | ({"dense_every": self.dense_every} if self.dense_every else {})


@dataclass(frozen=True)
class Schedule:
    """Phases by noise level, so that 4-step and 50-step runs both work.

    The noise level of x = s * data + n * noise is n / (s + n): 1 is pure noise, 0 is clean. For
    flow matching it is sigma itself.

    Args:
        phases: noisiest first; the first must start at 1.0.

    Raises:
        ValueError: if phases are missing, too many, out of range or not strictly falling.
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
        if bounds[0] != 1:
            raise ValueError(
                f"the first phase must start at noise level 1.0, got {quoted(bounds[0])}"
            )
        if any(b >= a for a, b in zip(bounds, bounds[1:], strict=False)):
            raise ValueError(
                f"phases must go from noisy to clean, got noise levels {listed(map(str, bounds))}"
            )

    def at(self, noise_level: float) -> str:
        """The assignment in force at a noise level, without the dense steps of `dense_every`."""
        return self._phase(noise_level).assignment

    def steps(self, noise_levels: Sequence[float]) -> tuple[str, ...]:
        """The assignment of every step, given their noise levels; `dense` for `dense_every` too."""
        names: list[str] = []
        since: dict[Phase, int] = {}
        for level in noise_levels:
            phase = self._phase(level)
            since[phase] = since.get(phase, 0) + 1
            refreshed = phase.dense_every and since[phase] % phase.dense_every == 0
            names.append(DENSE if refreshed else phase.assignment)
        return tuple(names)

    def _phase(self, noise_level: float) -> Phase:
        begun = [phase for phase in self.phases if noise_level <= phase.from_noise_level]
        return begun[-1] if begun else self.phases[0]
