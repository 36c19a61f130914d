"""Schedule: which assignment of patterns is in force at which noise level."""

from __future__ import annotations

from dataclasses import dataclass

DENSE = "dense"
"""The assignment that means stock attention."""


@dataclass(frozen=True)
class Phase:
    """One phase of the denoising trajectory.

    Args:
        below: the phase holds for noise levels of at most this, until a later phase's.
        use: the name of an assignment of the plan, or `dense`.
    """

    below: float
    use: str


@dataclass(frozen=True)
class Schedule:
    """Phases by noise level, so that 4-step and 50-step runs both work.

    The noise level of x = s * data + n * noise is n / (s + n): 1 is pure noise, 0 is clean. For
    flow matching it is sigma itself.

    Args:
        phases: noisiest first; the first must start at 1.0.

    Raises:
        ValueError: if phases are missing, out of range or not strictly falling.
    """

    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("a schedule needs at least one phase")
        bounds = [phase.below for phase in self.phases]
        for bound in bounds:
            if isinstance(bound, bool) or not isinstance(bound, int | float) or not 0 <= bound <= 1:
                raise ValueError(f"a phase's noise level must be from 0 to 1, got {bound!r}")
        if bounds[0] != 1:
            raise ValueError(f"the first phase must start at noise level 1.0, got {bounds[0]}")
        if any(b >= a for a, b in zip(bounds, bounds[1:], strict=False)):
            raise ValueError(f"phases must go from noisy to clean, got noise levels {bounds}")

    def at(self, noise_level: float) -> str:
        """The name of the assignment in force at a noise level."""
        name = self.phases[0].use
        for phase in self.phases:
            if noise_level <= phase.below:
                name = phase.use
        return name
