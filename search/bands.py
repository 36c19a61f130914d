"""Bands: a run's steps in equal shares, each of which may get an assignment of its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bands:
    """The bands of a run with these noise levels: `most`, or one per step if there are fewer."""

    noise_levels: tuple[float, ...]
    most: int

    @property
    def starts(self) -> list[int]:
        """First step of each band."""
        steps = len(self.noise_levels)
        count = min(self.most, steps)
        return [round(band * steps / count) for band in range(count)]

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
