"""A plan, or one of its patterns, as a PNG file that fits a screen."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ajour.files import replacing
from ajour.lowering import density
from ajour.patterns import Full, GeometricPattern, Skip
from ajour.pipelines.drawing import (
    KIND_COLOURS,
    LEVEL_COLOURS,
    LEVEL_NAMES,
    head_densities,
    head_map,
    key_pixels,
    level_pixels,
    pattern_view,
    spans,
)
from ajour.schedule import DENSE, REUSE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.patterns import Pattern
    from ajour.pipelines.drawing import PatternView
    from ajour.plan import Plan

MOST_TOKENS = 10**6
"""Most tokens of a grid that is drawn: block maps grow with their square."""

SIZE, DPI = (14.0, 8.4), 100
"""Of a picture: inches, and pixels per inch."""

COLUMNS, ROWS = 5, 3
"""Of the patterns in a plan's picture."""

LETTER = 0.0054
"""Width of a letter on the strip of the schedule, in noise levels."""

BLOCKS_AND_KEYS = "left: blocks of keys by blocks of queries; right: keys of the query +"

MOST_MAPS = 6
"""Most assignments in a plan's picture."""

SOFTWARE = "ajour inspect"
"""Noted in the files, so that they are known as pictures of this command."""


def draw_plan(plan: Plan, grid: TokenGrid, path: str | Path) -> None:
    """Draw a plan as PNG: its schedule, the heads of its assignments, and its patterns on a grid.

    A pattern is shown twice: its block map, and the keys of the query in the middle of the grid in
    three frames. Of many assignments and patterns, those of the schedule's first phases and those
    of the most heads are drawn; a line says how many are not.

    Args:
        plan: the plan.
        grid: the token grid to lower the patterns on, of at most a million tokens.
        path: the PNG file, written whole or not at all.

    Raises:
        ValueError: if the grid is larger.
        OSError: if the file cannot be written.
    """
    with _figure(grid, path) as figure:
        model = plan.model
        figure.suptitle(
            f"Plan for {model['transformer']}, {model['layers']} layers x {model['heads']} heads, "
            f"on grid {grid}",
            fontsize=12, x=0.01, ha="left",
        )  # fmt: skip
        top, middle, bottom = figure.subfigures(3, 1, height_ratios=[1.1, 2.6, 4.7])
        _draw_schedule(top, plan)
        _draw_assignments(middle, plan, grid)
        _draw_patterns(bottom, plan, grid)


def draw_pattern(name: str, pattern: Pattern, grid: TokenGrid, path: str | Path) -> None:
    """Draw a pattern as PNG: its block map, and the keys of the middle query in seven frames.

    Args and errors are those of `draw_plan`.
    """
    with _figure(grid, path) as figure:
        figure.suptitle(
            f"{name}: {pattern.sees}\n{pattern}, order {pattern.order}, "
            f"density {density(pattern, grid):.3f} on grid {grid}\n{BLOCKS_AND_KEYS}",
            fontsize=10,
        )  # fmt: skip
        view = pattern_view(pattern, grid, frames=7)
        if view is None:
            figure.text(0.5, 0.5, "measured while the pipeline runs", ha="center", fontsize=12)
            return
        blocks, keys = figure.subfigures(1, 2, width_ratios=[1, 1.25])
        axis = blocks.subplots()
        show_levels(axis, view.blocks)
        axis.set(xlabel="key block", ylabel="query block")
        axes = keys.subplots(2, 4).flat
        for axis, frame in zip(axes, view.frames, strict=False):
            show_levels(axis, view.keys[frame])
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"keys in frame {frame}", fontsize=9)
            if frame == view.query[0]:
                axis.plot(view.query[2], view.query[1], "r+")
        for axis in keys.axes[len(view.frames) :]:
            axis.axis("off")
        _level_legend(figure)


def is_drawn(path: Path) -> bool:
    """Whether a file is a picture that `ajour inspect` drew."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.info.get("Software") == SOFTWARE
    except OSError:  # also of files that are no picture
        return False


def show_levels(axis: Any, levels: NDArray[Any]) -> None:
    """Show levels (rows, columns) on a matplotlib axis, each in its colour."""
    axis.imshow(level_pixels(levels), interpolation="nearest")


@contextmanager
def _figure(grid: TokenGrid, path: str | Path) -> Iterator[Any]:
    """A matplotlib figure, which is saved at the end of the block."""
    if grid.seq_len > MOST_TOKENS:
        raise ValueError(
            f"a grid of up to {MOST_TOKENS} tokens can be drawn, got {grid.seq_len}; give a "
            "smaller one"
        )
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=SIZE, layout="constrained")
    try:
        yield figure
        with replacing(path) as file:
            figure.savefig(file, dpi=DPI, format="png", metadata={"Software": SOFTWARE})
    finally:
        plt.close(figure)


def _draw_schedule(panel: Any, plan: Plan) -> None:
    """The phases as a strip from noise level 1 to 0, and the names of those that have room."""
    strip = panel.subplots()
    for span in spans(plan.schedule):
        width = span.start - span.end
        strip.barh(0, width, left=span.end, color=span.colour, edgecolor="white", height=0.8)
        if width > LETTER * len(span.assignment):
            strip.text(
                (span.start + span.end) / 2, 0, span.assignment, ha="center", va="center",
                color="white", fontsize=8,
            )  # fmt: skip
    strip.set(xlim=(1, 0), ylim=(-0.45, 0.45), yticks=[], xlabel="noise level: 1 is pure noise")
    strip.set_title("schedule: what runs at which noise level", fontsize=10, loc="left")
    for side in ("left", "right", "top"):
        strip.spines[side].set_visible(False)


def _draw_assignments(panel: Any, plan: Plan, grid: TokenGrid) -> None:
    """The layer x head maps, coloured by kind of pattern, with one legend."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    used = [name for name in plan.schedule.assignments if name not in (DENSE, REUSE)]
    names = list(dict.fromkeys([*used, *plan.assignments]))
    shown, left = names[:MOST_MAPS], names[MOST_MAPS:]
    axes = panel.subplots(1, len(shown) + 1, squeeze=False)[0]
    kinds: dict[str, str] = {}
    colours = {span.assignment: span.colour for span in spans(plan.schedule)}
    for axis, name in zip(axes, shown, strict=False):
        heads = head_map(plan, name)
        kinds |= heads.legend
        axis.imshow(
            [[to_rgb(KIND_COLOURS[kind]) for kind in row] for row in heads.kinds],
            aspect="auto", interpolation="nearest",
        )  # fmt: skip
        axis.set(xlabel="head", ylabel="layer")
        for part in (axis.xaxis, axis.yaxis):
            part.get_major_locator().set_params(integer=True)
        mean = head_densities(plan, name, grid).mean()
        colour = colours.get(name, "black")
        axis.set_title(f"{name}: density {mean:.2f}", fontsize=10, color=colour)
    axes[-1].axis("off")
    patches = [Patch(color=colour, label=kind) for kind, colour in kinds.items()]
    more = f"{len(left)} more assignments" if left else None
    axes[-1].legend(handles=patches, loc="center left", frameon=False, fontsize=9, title=more)


def _draw_patterns(panel: Any, plan: Plan, grid: TokenGrid) -> None:
    """The patterns of the most heads; those without a picture only by name."""
    rows = (row for layers in plan.assignments.values() for row in layers)
    heads = Counter(name for row in rows for name in row)
    total = heads.total()
    views, unseen = [], []
    for name, count in heads.most_common():
        pattern = plan.patterns[name]
        if isinstance(pattern, GeometricPattern) and not isinstance(pattern, Full | Skip):
            views.append((name, count / total))
        else:
            unseen.append(f"{name} {count / total:.0%}")
    shown, left = views[: COLUMNS * ROWS], views[COLUMNS * ROWS :]
    lines = panel.subfigures(ROWS, COLUMNS, squeeze=False).flat
    for tile, (name, share) in zip(lines, shown, strict=False):
        pattern = plan.patterns[name]
        title = f"{name}\n{share:.0%} of heads, density {density(pattern, grid):.2f}"
        tile.suptitle(title, fontsize=8.5)
        view = pattern_view(pattern, grid, frames=3)
        if view is not None:
            _draw_tile(tile, view)
    notes = [BLOCKS_AND_KEYS + " in three frames"]
    if unseen:
        notes.append(f"without a picture: {', '.join(unseen)} of heads")
    if left:
        notes.append(f"not drawn: {len(left)} patterns of {sum(s for _, s in left):.0%} of heads")
    panel.suptitle("; ".join(notes), fontsize=9, x=0.01, ha="left")
    _level_legend(panel)


def _draw_tile(tile: Any, view: PatternView) -> None:
    """The block map of a pattern, and the keys of the middle query in its frames."""
    blocks, keys = tile.subplots(1, 2, width_ratios=[1, 2.2])
    show_levels(blocks, view.blocks)
    keys.imshow(key_pixels(view), interpolation="nearest")
    for axis in (blocks, keys):
        axis.set(xticks=[], yticks=[])
    if view.query[0] in view.frames:
        place = view.frames.index(view.query[0])
        keys.plot(place * (view.keys.shape[2] + 1) + view.query[2], view.query[1], "r+")


def _level_legend(panel: Any) -> None:
    """What the colours of blocks and keys mean, below a panel."""
    from matplotlib.patches import Patch

    pairs = zip(LEVEL_NAMES, LEVEL_COLOURS, strict=True)
    patches = [Patch(facecolor=colour, edgecolor="#888888", label=name) for name, colour in pairs]
    panel.legend(handles=patches, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
