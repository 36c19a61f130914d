"""Small charts as SVG text: they follow the page's colours and need no library."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 14, 46


@dataclass(frozen=True)
class Series:
    """Points with a name.

    Args:
        name: for the legend; `s-NAME` of `kind` is its look.
        points: (x, y) each.
        kind: `line`, `dots` or `stars`.
        labels: of the points, shown on hover; none if empty.
    """

    name: str
    points: Sequence[tuple[float, float]]
    kind: str = "dots"
    labels: Sequence[str] = ()


def chart(
    title: str, x_name: str, y_name: str, series: Sequence[Series], zero: bool = False
) -> str:
    """A chart of several series.

    Args:
        title: read out by screen readers.
        x_name: of the horizontal axis.
        y_name: of the vertical one.
        series: what to draw; those without points are left out.
        zero: let the vertical axis begin at 0.
    """
    series = [one for one in series if len(one.points)]
    points = np.array([point for one in series for point in one.points], float)
    if not len(points):
        return ""
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    x_ticks, y_ticks = ticks(x0, x1), ticks(0.0 if zero else y0, y1)
    x0, x1 = min(x0, x_ticks[0]), max(x1, x_ticks[-1])
    y0, y1 = min(y_ticks[0], y0), max(y1, y_ticks[-1])

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - x0) / ((x1 - x0) or 1)

    def down(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - y0) / ((y1 - y0) or 1)

    parts = []
    for tick in y_ticks:
        y = down(tick)
        parts.append(
            f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in x_ticks:
        place = f'x="{across(tick):.1f}" y="{HEIGHT - BOTTOM + 18}"'
        parts.append(f'<text {place} text-anchor="middle">{tick:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(x_name)}</text>'
    )
    parts.append(
        f'<text transform="translate(14 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y_name)}</text>"
    )
    for index, one in enumerate(series):
        drawn = [(across(x), down(y)) for x, y in one.points]
        parts.append(_marks(one, drawn, index))
    legend = "".join(
        f'<li><i class="s-{index} {one.kind}"></i>{html.escape(one.name)}</li>'
        for index, one in enumerate(series)
    )
    return (
        f'<figure class="aj-chart"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)}">{"".join(parts)}</svg>'
        f'<ul class="aj-legend">{legend}</ul></figure>'
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """A table that scrolls sideways on narrow pages."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    name = html.escape(caption or columns[0])
    return (
        f'<div class="aj-table" role="region" tabindex="0" aria-label="{name}"><table>'
        f"<caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers that span an interval."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** np.floor(np.log10(span / about))
    step = next(float(power * n) for n in (1, 2, 5, 10) if span / (power * n) <= about)
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    return [round(float(n) * step, 10) for n in np.arange(first, last + 1)]


def _marks(one: Series, drawn: list[tuple[float, float]], index: int) -> str:
    if one.kind == "line":
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        return f'<polyline class="s-{index}" points="{path}"/>'
    labels = one.labels or [one.name] * len(drawn)
    shapes = []
    for (x, y), label in zip(drawn, labels, strict=True):
        said = f"<title>{html.escape(label)}</title>"
        if one.kind == "stars":
            shapes.append(
                f'<path class="s-{index}" d="M{x:.1f} {y - 9:.1f}l9 9l-9 9l-9 -9z">{said}</path>'
            )
        else:
            shapes.append(
                f'<circle class="s-{index}" cx="{x:.1f}" cy="{y:.1f}" r="5">{said}</circle>'
            )
    return "".join(shapes)
