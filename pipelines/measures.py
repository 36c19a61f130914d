"""The measures of a sparse video against the dense video: units, and what a value means."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Measure(NamedTuple):
    """A measure: its title, the format of its values, its unit, and the meaning of a value."""

    title: str
    form: str
    unit: str
    meaning: str

    def show(self, value: float) -> str:
        """A value with the unit, in short."""
        return f"{self.form.format(value)} {self.unit}".rstrip()


MEASURES = {
    "psnr_db": Measure(
        "PSNR", "{:.2f}", "dB", "difference pixel by pixel; 99 is equal, below 25 content changes"
    ),
    "ssim": Measure("SSIM", "{:.4f}", "", "likeness of local structure; 1 is equal"),
    "perceptual": Measure(
        "perceptual distance",
        "{:.3f}",
        "",
        "FLIP, 0 to 1: how strong the change looks when the videos are flipped; 0 is equal",
    ),
    "banding": Measure(
        "banding",
        "{:.2f}",
        "levels of 255",
        "strength of faint bands in flat regions; 0 is none, from about 1 on they can be seen",
    ),
    "flicker": Measure(
        "flicker", "{:.3f}", "x dense", "temporal warp error over that of dense; 1 is equal"
    ),
}
"""By key in reports."""


def explain(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """As JSON: title, unit and meaning of the measures among some keys."""
    known = set(keys)
    return {
        key: {"title": measure.title, "unit": measure.unit, "meaning": measure.meaning}
        for key, measure in MEASURES.items()
        if key in known
    }
