"""Pictures of patterns and plans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.grid import BLOCK
from ajour.lists import LEVELS
from ajour.lowering import density, level_map
from ajour.orders import order
from ajour.patterns import GeometricPattern
from ajour.schedule import DENSE

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.patterns import Pattern
    from ajour.plan import Plan

KIND_COLOURS = {
    "full": "#4c566a", "skip": "#e5e9f0", "window": "#5e81ac", "diagonal": "#88c0d0",
    "multi_diagonal": "#a3be8c", "stripe": "#ebcb8b",
    "pyramid": "#d08770", "captured": "#bf616a",
}  # fmt: skip
OTHER_COLOUR = "#b48ead"
DROPPED_COLOUR = "#eeeeee"
PHASE_COLOURS = ("#d8dee9", "#5e81ac")
"""Of other sparse phases than the one that is drawn, and of that one."""


def draw_plan(plan: Plan, grid: TokenGrid, path: str | Path) -> None:
    """Draw a plan as PNG: the layer x head map of each assignment, then every pattern on a grid.

    A pattern is shown twice: its block map, and the keys of the query in the middle of the grid,
    frame by frame, as the blocks of its order really cover them.

    Args:
        plan: the plan.
        grid: the token grid to lower the patterns on.
        path: the PNG file.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = len(plan.assignments) + len(plan.patterns)
    heights = [max(2.2, 0.28 * plan.model["layers"])] * len(plan.assignments)
    heights += [2.4] * len(plan.patterns)
    figure = plt.figure(figsize=(11, sum(heights) + 0.5 * rows), layout="constrained")
    panels = figure.subfigures(rows, 1, height_ratios=heights, squeeze=False)[:, 0]
    for panel, name in zip(panels, plan.assignments, strict=False):
        _draw_assignment(panel, plan, name, grid)
    for panel, (name, pattern) in zip(
        panels[len(plan.assignments) :], plan.patterns.items(), strict=True
    ):
        _draw_pattern(panel, name, pattern, grid)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def selected_keys(pattern: GeometricPattern, grid: TokenGrid, query: int) -> NDArray[np.int8]:
    """Level at which each video token's block is seen by a query's block; -1 where it is not.

    Args:
        pattern: the pattern.
        grid: the grid.
        query: the query, as an index in raster order.

    Returns:
        (frames, height, width).
    """
    place = np.argsort(order(pattern.order, grid.shape))
    levels = level_map(pattern, grid)[place[query] // BLOCK]
    return np.asarray(levels[place // BLOCK], dtype=np.int8).reshape(grid.shape)


def _draw_assignment(panel: Any, plan: Plan, name: str, grid: TokenGrid) -> None:
    """The layer x head map, coloured by family, and the schedule."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    layers = [plan.layer(name, layer) for layer in range(plan.model["layers"])]
    colours = [[to_rgb(KIND_COLOURS.get(p.kind, OTHER_COLOUR)) for p in row] for row in layers]
    picture, strip = panel.subplots(1, 2, width_ratios=[2, 1])
    picture.imshow(colours, aspect="auto", interpolation="nearest")
    picture.set_xlabel("head")
    picture.set_ylabel("layer")
    for axis in (picture.xaxis, picture.yaxis):
        axis.get_major_locator().set_params(integer=True)
    densities = {p: density(p, grid) for row in layers for p in row}
    mean = np.mean([densities[p] for row in layers for p in row])
    picture.set_title(f"assignment {name}: density {mean:.3f} on {grid}", fontsize=10)
    families = dict.fromkeys(p.kind for row in layers for p in row)
    patches = [Patch(color=KIND_COLOURS.get(f, OTHER_COLOUR), label=f) for f in families]
    strip.legend(handles=patches, loc="upper left", frameon=False, fontsize=9)
    phases = plan.schedule.phases
    ends = [phase.from_noise_level for phase in phases[1:]] + [0.0]
    for phase, end in zip(phases, ends, strict=True):
        colour = (
            KIND_COLOURS["full"]
            if phase.assignment == DENSE
            else PHASE_COLOURS[phase.assignment == name]
        )
        strip.barh(
            0, phase.from_noise_level - end, left=end, color=colour, edgecolor="white", height=0.3
        )
        if phase.assignment in (name, DENSE):
            strip.text(
                (phase.from_noise_level + end) / 2, 0.25, phase.assignment, ha="center", fontsize=9
            )
    strip.set(xlim=(1, 0), ylim=(-0.3, 1.2), yticks=[], xlabel="noise level")
    for side in ("left", "right", "top"):
        strip.spines[side].set_visible(False)


def _draw_pattern(panel: Any, name: str, pattern: Pattern, grid: TokenGrid) -> None:
    """The block map and the keys of the middle query on a few frames."""
    from matplotlib import colormaps

    panel.suptitle(
        f"{name}: {pattern}, order {pattern.order}, density {density(pattern, grid):.3f}",
        fontsize=9,
    )
    if not isinstance(pattern, GeometricPattern):
        panel.text(0.5, 0.4, "measured while the pipeline runs", ha="center", fontsize=10)
        return
    levels = level_map(pattern, grid)
    middle = (grid.frames // 2 * grid.height + grid.height // 2) * grid.width + grid.width // 2
    seen = selected_keys(pattern, grid, middle)
    shown = np.unique(np.linspace(0, grid.frames - 1, 7).round().astype(int))
    axes = panel.subplots(1, 1 + len(shown), width_ratios=[1.6] + [1] * len(shown), squeeze=False)
    shades = colormaps["Blues_r"].with_extremes(under=DROPPED_COLOUR)
    limits = {"vmin": 0, "vmax": LEVELS, "cmap": shades, "interpolation": "nearest"}
    axes[0, 0].imshow(levels, **limits)
    axes[0, 0].set_ylabel("query block")
    for axis, frame in zip(axes[0, 1:], shown, strict=True):
        axis.imshow(seen[frame], **limits)
        axis.set(xticks=[], yticks=[])
        axis.set_title(f"frame {frame}", fontsize=8)
        if frame == grid.frames // 2:
            axis.plot(grid.width // 2, grid.height // 2, "r+")
