"""Bands: a run's steps in equal shares, each of which may get an assignment of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ajour.steps import run_steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ajour.plan import Plan
    from ajour.steps import Step


@dataclass(frozen=True)
class Bands:
    """The bands of a run.

    A band never holds steps of two transformers, so each transformer has at least one band.

    Args:
        noise_levels: of the run's steps.
        most: number of bands; fewer if there are fewer steps.
        cuts: the steps in which the next transformer takes over.
    """

    noise_levels: tuple[float, ...]
    most: int
    cuts: tuple[int, ...] = ()

    @property
    def stages(self) -> list[tuple[int, int]]:
        """First step, and step after the last, of each transformer."""
        return stages(len(self.noise_levels), self.cuts)

    @cached_property
    def starts(self) -> list[int]:
        """First step of each band."""
        lengths = [end - start for start, end in self.stages]
        counts = [1] * len(lengths)
        while sum(counts) < min(self.most, sum(lengths)):  # divide the longest bands
            longest = [length / count for length, count in zip(lengths, counts, strict=True)]
            counts[longest.index(max(longest))] += 1
        return [
            start + round(band * (end - start) / count)
            for (start, end), count in zip(self.stages, counts, strict=True)
            for band in range(count)
        ]

    @property
    def lengths(self) -> list[int]:
        """Steps of each band."""
        ends = [*self.starts[1:], len(self.noise_levels)]
        return [end - start for start, end in zip(self.starts, ends, strict=True)]

    @property
    def middles(self) -> list[int]:
        """Middle step of each band."""
        return [
            start + length // 2 for start, length in zip(self.starts, self.lengths, strict=True)
        ]

    def edge(self, step: int) -> float:
        """Noise level at which a phase begins with a step: halfway to the step before."""
        levels = self.noise_levels
        return 1.0 if step == 0 else round((levels[step - 1] + levels[step]) / 2, 6)

    def of(self, step: int) -> int:
        """Index of the band that a step is in."""
        return sum(start <= step for start in self.starts) - 1

    def stage_of(self, step: int) -> int:
        """Index of the transformer that a step runs."""
        return sum(cut <= step for cut in self.cuts)


def stages(steps: int, cuts: Sequence[int]) -> list[tuple[int, int]]:
    """First step, and step after the last, of each transformer of a run that is cut in steps."""
    return list(zip([0, *cuts], [*cuts, steps], strict=True))


def steps_of(
    plan: Plan, noise_levels: Sequence[float], cuts: Sequence[int] = ()
) -> tuple[Step, ...]:
    """What every step of a run of a plan does; each transformer begins anew, see `run_steps`."""
    steps: list[Step] = []
    for start, end in stages(len(noise_levels), cuts):
        steps += run_steps(plan.schedule, noise_levels, plan.is_captured, start)[start:end]
    return tuple(steps)
