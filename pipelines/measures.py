"""The measures of a sparse video against the dense video: units, and what a value means."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


EQUAL_DB = 99.0
"""Written as the PSNR of equal videos, which is infinite, which JSON cannot say."""

EVEN = 0.05
"""Times that differ by less than this share are called equal: a pair of runs scatters as much."""


class Measure(NamedTuple):
    """A measure.

    Attributes:
        title: for people.
        form: of a value.
        unit: in full.
        meaning: of a value.
        equal: the value that stands for equal videos, if it is no real figure.
    """

    title: str
    form: str
    unit: str
    meaning: str
    equal: float | None = None

    def show(self, value: float) -> str:
        """A value with its unit, in short."""
        return "equal videos" if value == self.equal else self.form.format(value)


MEASURES = {
    "psnr_db": Measure(
        "PSNR", "{:.2f} dB", "dB", "difference pixel by pixel, in decibels; higher is better, 99 "
        "means equal videos", EQUAL_DB,
    ),
    "ssim": Measure(
        "SSIM", "{:.4f}", "up to 1", "similarity of local structure; 1 means equal videos"
    ),
    "perceptual": Measure(
        "perceptual", "{:.3f}", "0 to 1", "perceptual distance (FLIP), 0 to 1: how strong the "
        "difference looks when the videos are flipped; 0 means equal videos",
    ),
    "banding": Measure(
        "banding", "{:.2f} levels", "levels of 255", "strength of bands in flat regions, in levels "
        "of 255; 0 means none",
    ),
    "flicker": Measure(
        "flicker", "{:.2f}x", "times dense", "temporal warp error relative to dense attention; 1 "
        "means equal, below 1 is steadier",
    ),
}  # fmt: skip
"""By key in reports."""


def explain(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """As JSON: title, unit and meaning of the measures among some keys."""
    known = set(keys)
    return {
        key: {"title": measure.title, "unit": measure.unit, "meaning": measure.meaning}
        for key, measure in MEASURES.items()
        if key in known
    }
