"""A plan as a PNG file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ajour.files import replacing
from ajour.lowering import density
from ajour.patterns import GeometricPattern
from ajour.pipelines.drawing import (
    KIND_COLOURS,
    LEVEL_COLOURS,
    head_densities,
    head_map,
    pattern_view,
    spans,
)
from ajour.schedule import DENSE, REUSE

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.patterns import Pattern
    from ajour.plan import Plan

MOST_TOKENS = 10**6
"""Most tokens of a grid that is drawn: block maps grow with their square."""


def draw_plan(plan: Plan, grid: TokenGrid, path: str | Path) -> None:
    """Draw a plan as PNG: the layer x head map of each assignment, then every pattern on a grid.

    A pattern is shown twice: its block map, and the keys of the query in the middle of the grid,
    frame by frame, as the blocks of its order cover them.

    Args:
        plan: the plan.
        grid: the token grid to lower the patterns on, of at most a million tokens.
        path: the PNG file, written whole or not at all.

    Raises:
        ValueError: if the grid is larger.
        OSError: if the file cannot be written.
    """
    if grid.seq_len > MOST_TOKENS:
        raise ValueError(
            f"a grid of up to {MOST_TOKENS} tokens can be drawn, got {grid.seq_len}; give a "
            "smaller one"
        )
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    heights = [max(2.2, 0.28 * plan.model["layers"])] * len(plan.assignments)
    heights += [2.4 if isinstance(p, GeometricPattern) else 0.8 for p in plan.patterns.values()]
    size = (11, sum(heights) + 0.5 * len(heights))
    figure = plt.figure(figsize=size, layout="constrained")
    panels = iter(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    for name in plan.assignments:
        _draw_assignment(next(panels), plan, name, grid)
    for name, pattern in plan.patterns.items():
        _draw_pattern(next(panels), name, pattern, grid)
    try:
        with replacing(path) as file:
            figure.savefig(file, dpi=110, format="png")
    finally:
        plt.close(figure)


def show_levels(axis: Any, levels: NDArray[Any]) -> None:
    """Show levels (rows, columns) on a matplotlib axis, each in its colour."""
    from matplotlib.colors import ListedColormap

    colours = ListedColormap(LEVEL_COLOURS)
    axis.imshow(levels + 1, cmap=colours, vmin=-0.5, vmax=4.5, interpolation="nearest")


def _draw_assignment(panel: Any, plan: Plan, name: str, grid: TokenGrid) -> None:
    """The layer x head map, coloured by kind of pattern, and the schedule."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    heads = head_map(plan, name)
    picture, strip = panel.subplots(1, 2, width_ratios=[2, 1])
    picture.imshow(
        [[to_rgb(KIND_COLOURS[kind]) for kind in row] for row in heads.kinds],
        aspect="auto", interpolation="nearest",
    )  # fmt: skip
    picture.set(xlabel="head", ylabel="layer")
    for axis in (picture.xaxis, picture.yaxis):
        axis.get_major_locator().set_params(integer=True)
    mean = head_densities(plan, name, grid).mean()
    picture.set_title(f"assignment {name}: density {mean:.3f} on {grid}", fontsize=10)
    patches = [Patch(color=colour, label=kind) for kind, colour in heads.legend.items()]
    strip.legend(handles=patches, loc="upper left", frameon=False, fontsize=9)
    for span in spans(plan.schedule):
        strong = span.assignment in (name, DENSE, REUSE)
        strip.barh(
            0, span.start - span.end, left=span.end, color=span.colour, edgecolor="white",
            height=0.3, alpha=1 if strong else 0.3,
        )  # fmt: skip
        if strong and span.start - span.end > 0.12:
            middle = (span.start + span.end) / 2
            strip.text(middle, 0.25, span.assignment, ha="center", fontsize=9)
    strip.set(xlim=(1, 0), ylim=(-0.3, 1.2), yticks=[], xlabel="noise level")
    for side in ("left", "right", "top"):
        strip.spines[side].set_visible(False)


def _draw_pattern(panel: Any, name: str, pattern: Pattern, grid: TokenGrid) -> None:
    """The block map and the keys of the middle query in a few frames."""
    panel.suptitle(
        f"{name}: {pattern}, order {pattern.order}, density {density(pattern, grid):.3f}",
        fontsize=9, wrap=True,
    )  # fmt: skip
    view = pattern_view(pattern, grid, frames=7)
    if view is None:
        panel.text(0.5, 0.1, "measured while the pipeline runs", ha="center", fontsize=10)
        return
    widths = [1.6] + [1] * len(view.frames)
    axes = panel.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
    show_levels(axes[0], view.blocks)
    axes[0].set_ylabel("query block")
    for axis, frame in zip(axes[1:], view.frames, strict=True):
        show_levels(axis, view.keys[frame])
        axis.set(xticks=[], yticks=[])
        axis.set_title(f"frame {frame}", fontsize=8)
        if frame == view.query[0]:
            axis.plot(view.query[2], view.query[1], "r+")
