"""Small charts as SVG: they follow the page's colours and need no library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from ajour.demo.render import render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 72, WIDTH - 28, 14, HEIGHT - 46
"""Edges of the drawn area."""


@dataclass(frozen=True)
class Series:
    """Points with a name.

    Args:
        name: for the legend.
        points: (x, y) each.
        kind: `line`, `dots` or `stars`.
        labels: of the points, shown on hover; the name if empty.
        named: whether the labels are also written beside the points.
    """

    name: str
    points: Sequence[tuple[float, float]]
    kind: str = "dots"
    labels: Sequence[str] = ()
    named: bool = False


def chart(
    title: str, x_name: str, y_name: str, series: Sequence[Series], zero: bool = False
) -> Markup:
    """A chart of several series; empty without points.

    Args:
        title: for screen readers.
        x_name: of the horizontal axis.
        y_name: of the vertical axis.
        series: what to draw; a series without points is left out.
        zero: let the vertical axis begin at 0.
    """
    series = [line for line in series if len(line.points)]
    if not series:
        return Markup()
    points = np.concatenate([np.array(line.points, float) for line in series])
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    x_ticks, y_ticks = ticks(x0, x1), ticks(0.0 if zero else y0, y1)

    def scaled(values: Any, marks: list[float], start: int, end: int) -> list[float]:
        share = (np.asarray(values) - marks[0]) / ((marks[-1] - marks[0]) or 1)
        return [round(float(place), 1) for place in start + (end - start) * share]

    def places(points: Any) -> list[tuple[float, float]]:
        x, y = np.array(points, float).T
        across, down = scaled(x, x_ticks, LEFT, RIGHT), scaled(y, y_ticks, BOTTOM, TOP)
        return list(zip(across, down, strict=True))

    return render(
        "chart", title=title, x_name=x_name, y_name=y_name, width=WIDTH, height=HEIGHT,
        left=LEFT, right=RIGHT, bottom=BOTTOM,
        x_ticks=list(zip(scaled(x_ticks, x_ticks, LEFT, RIGHT), x_ticks, strict=True)),
        y_ticks=list(zip(scaled(y_ticks, y_ticks, BOTTOM, TOP), y_ticks, strict=True)),
        series=[(line, places(line.points)) for line in series],
    )  # fmt: skip


def frontier_chart(
    title: str,
    predicted: Sequence[tuple[float, float]],
    plans: Mapping[str, Sequence[tuple[str, float, float]]],
) -> Markup:
    """Quality against speed-up: the predicted frontier as a line, plans as dots.

    Args:
        title: for screen readers.
        predicted: (speed-up, PSNR in dB) each.
        plans: groups of (name, speed-up, PSNR in dB); the group `chosen` is drawn as a diamond.
    """
    series = [Series("predicted frontier", predicted, "line")]
    for group, rows in plans.items():
        labels = [f"{name}: {speedup:.2f}x, {psnr:.1f} dB" for name, speedup, psnr in rows]
        kind = "stars" if group == "chosen" else "dots"
        series.append(Series(group, [row[1:] for row in rows], kind, labels))
    return chart(title, "speed-up of denoising", "PSNR, dB", series)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> Markup:
    """A table that scrolls sideways on narrow pages; screen readers read out its caption."""
    return render("table", columns=columns, rows=rows, caption=caption)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers that span an interval."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** np.floor(np.log10(span / about))
    step = next(float(power * n) for n in (1, 2, 5, 10) if span / (power * n) <= about)
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    return [round(float(n) * step, 10) for n in np.arange(first, last + 1)]
