"""Bounds on what viewers see, which a plan has to hold beside its target."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import inf, log10
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ajour.search.verify.runs import Quality


class Range(NamedTuple):
    """Bounds of a figure are above `best`, the figure of equal videos, up to `highest`.

    `decibels` is what it takes to have a tenth of the distance from `best`.
    """

    best: float
    highest: float
    decibels: float


RANGES = {
    "perceptual": Range(0, 1, 20),
    "banding": Range(0, 7, 20),  # figures end at 8
    "flicker": Range(1, 99, 10),  # a squared error
}


@dataclass(frozen=True)
class Bounds:
    """The highest figures of a plan, see `Quality`; None leaves a figure free.

    Args:
        perceptual: perceptual distance from the dense video, over 0 up to 1.
        banding: in levels of 255, over 0 up to 7.
        flicker: relative to the dense video, over 1 up to 99.

    Raises:
        ValueError: if a bound is out of its range.
    """

    perceptual: float | None = None
    banding: float | None = None
    flicker: float | None = None

    def __post_init__(self) -> None:
        for name, limit in self.to_dict().items():
            best, highest, _ = RANGES[name]
            if not best < limit <= highest:
                raise ValueError(f"a bound of {name} is over {best} up to {highest}, got {limit:g}")

    def __str__(self) -> str:
        return ", ".join(f"{name} at most {limit:g}" for name, limit in self.to_dict().items())

    def to_dict(self) -> dict[str, float]:
        """The bounds that are given, by figure."""
        return {name: limit for name, limit in asdict(self).items() if limit is not None}

    def missed(self, quality: Quality) -> dict[str, float]:
        """The figures that exceed their bounds."""
        return {
            name: getattr(quality, name)
            for name, margin in self._margins(quality).items()
            if margin < 0
        }

    def margin_db(self, quality: Quality) -> float:
        """Room of the tightest bound, in decibels of the error; negative if it is missed."""
        return min(self._margins(quality).values(), default=inf)

    def _margins(self, quality: Quality) -> dict[str, float]:
        margins = {}
        for name, limit in self.to_dict().items():
            best, _, decibels = RANGES[name]
            excess = getattr(quality, name) - best
            margins[name] = decibels * log10((limit - best) / excess) if excess > 0 else inf
        return margins
