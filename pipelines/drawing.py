"""What to draw of plans and patterns, as plain data, and its colours. Renderers only lay it out.

Renderers: `ajour.pipelines.draw` (PNG), the pages of `ajour.demo` and of a search's report (HTML),
and `tools/pattern_pictures.py` (the pictures of the documentation).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ajour.grid import BLOCK
from ajour.lowering import density, level_map
from ajour.orders import order
from ajour.patterns import KINDS, GeometricPattern
from ajour.schedule import DENSE, REUSE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.patterns import Pattern
    from ajour.plan import Plan
    from ajour.schedule import Schedule

KIND_COLOURS = {
    "full": "#3c4654", "skip": "#eef0f4", "window": "#0072b2", "diagonal": "#56b4e9",
    "multi_diagonal": "#009e73", "stripe": "#e69f00", "pyramid": "#d55e00", "captured": "#cc79a7",
}  # fmt: skip
"""By kind of pattern; Okabe and Ito's colours, which colour-blind readers can tell apart."""

LEVEL_COLOURS = ("#f1f1f1", "#08306b", "#2a7ab9", "#7fb8da", "#c3dbee")
"""Of keys that are not attended, exact, and mean-pooled 2x, 4x and 8x: the level plus 1."""

LEVEL_NAMES = ("not attended", "exact", "mean-pooled 2x", "mean-pooled 4x", "mean-pooled 8x")

DENSE_COLOUR = KIND_COLOURS["full"]

REUSE_COLOUR = "#687382"
"""Dark enough for the white labels of the schedule: 4.8 to 1."""

ASSIGNMENT_COLOURS = ("#0b5cad", "#2f7fce", "#0e7c7b", "#6a4fb3", "#8a5a00", "#a23b72")
"""Of a schedule's assignments, in the order in which they appear; used again after the last."""


@dataclass(frozen=True)
class Span:
    """A phase of a schedule as a stretch of noise levels.

    Attributes:
        assignment: the assignment that is in force, `dense` or `reuse`.
        start: noise level at which it begins.
        end: noise level at which it ends, lower than `start`.
        dense_every: one of so many of its steps is dense; 0 for none.
        colour: of the stretch.
    """

    assignment: str
    start: float
    end: float
    dense_every: int
    colour: str

    def __str__(self) -> str:
        """For example `sparse from 0.7 to 0, dense every 4 steps`."""
        dense = f", dense every {self.dense_every} steps" if self.dense_every else ""
        return f"{self.assignment} from {self.start:.3g} to {self.end:.3g}{dense}"


def spans(schedule: Schedule) -> tuple[Span, ...]:
    """The phases of a schedule from noise level 1 to 0."""
    phases = schedule.phases
    colours = {
        name: ASSIGNMENT_COLOURS[i % len(ASSIGNMENT_COLOURS)]
        for i, name in enumerate(schedule.assignments)
    }
    colours |= {DENSE: DENSE_COLOUR, REUSE: REUSE_COLOUR}
    ends = [*(phase.from_noise_level for phase in phases[1:]), 0.0]
    return tuple(
        Span(p.assignment, p.from_noise_level, end, p.dense_every, colours[p.assignment])
        for p, end in zip(phases, ends, strict=True)
    )


def in_words(spans: Sequence[Span]) -> str:
    """The stretches of a schedule; of several reused ones only how many there are, and where."""
    reused = [span for span in spans if span.assignment == REUSE]
    if len(reused) < 2:
        return "; ".join(map(str, spans))
    texts, last = [], ""
    for span in spans:
        if span.assignment not in (REUSE, last):
            texts.append(f"{span.assignment} from {span.start:.3g}")
            last = span.assignment
    start, end = reused[0].start, reused[-1].end
    return "; ".join(
        [*texts, f"reused steps in {len(reused)} places from {start:.3g} to {end:.3g}"]
    )


@dataclass(frozen=True)
class HeadMap:
    """Which head of which layer uses which pattern under an assignment.

    Attributes:
        names: names of patterns, by layer and head.
        kinds: kinds of these patterns, by layer and head.
    """

    names: tuple[tuple[str, ...], ...]
    kinds: tuple[tuple[str, ...], ...]

    @property
    def legend(self) -> dict[str, str]:
        """The kinds that are used and their colours, in the order of `ajour.patterns.KINDS`."""
        used = {kind for row in self.kinds for kind in row}
        return {kind: KIND_COLOURS[kind] for kind in KINDS if kind in used}


def head_map(plan: Plan, assignment: str) -> HeadMap:
    """The map of an assignment of a plan."""
    names = plan.assignments[assignment]
    return HeadMap(names, tuple(tuple(plan.patterns[name].kind for name in row) for row in names))


def head_densities(plan: Plan, assignment: str, grid: TokenGrid) -> NDArray[np.float64]:
    """The density of every head's pattern: (layers, heads), shares of dense attention's tiles."""
    names = plan.assignments[assignment]
    used = {name for row in names for name in row}
    known = {name: density(plan.patterns[name], grid) for name in used}
    return np.array([[known[name] for name in row] for row in names])


@dataclass(frozen=True)
class PatternView:
    """A pattern on a grid, as blocks and as the keys that one query sees.

    Attributes:
        blocks: int8 (Nv, Nv), the level of each key block for each query block, -1 where it is not
            attended.
        keys: int8 (frames, height, width), the level at which the query sees each token's block.
        query: (t, h, w) of the query.
        query_block: the query's block, a row of `blocks`.
        frames: the frames to show.
    """

    blocks: NDArray[np.int8]
    keys: NDArray[np.int8]
    query: tuple[int, int, int]
    query_block: int
    frames: tuple[int, ...]


def pattern_view(
    pattern: Pattern,
    grid: TokenGrid,
    levels: NDArray[np.int8] | None = None,
    query: tuple[int, int, int] | None = None,
    frames: int = 5,
) -> PatternView | None:
    """What to draw of a pattern.

    Args:
        pattern: the pattern.
        grid: the grid; its exact tokens are left out.
        levels: the level map (Nv, Nv) of a captured pattern, as measured in a run.
        query: (t, h, w) of a token; the middle of the grid if None.
        frames: how many frames to show at most, evenly spread.

    Returns:
        None for a captured pattern without a level map of this grid.
    """
    if isinstance(pattern, GeometricPattern):
        levels = level_map(pattern, replace(grid, before=0, after=0))
    if levels is None or len(levels) != grid.video_blocks:
        return None
    if query is None:
        query = (grid.frames // 2, grid.height // 2, grid.width // 2)
    block_of = np.argsort(order(pattern.order, grid.shape)) // BLOCK
    row = int(block_of[np.ravel_multi_index(query, grid.shape)])
    keys = np.asarray(levels[row][block_of], dtype=np.int8).reshape(grid.shape)
    return PatternView(levels, keys, query, row, spread(grid.frames, frames))


def level_pixels(levels: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Levels in their colours: (..., 3)."""
    palette = np.array([tuple(bytes.fromhex(colour[1:])) for colour in LEVEL_COLOURS], np.uint8)
    return np.asarray(palette[levels.astype(int) + 1])


def key_pixels(view: PatternView) -> NDArray[np.uint8]:
    """The keys of a view's query in the frames to show, side by side: (height, width, 3)."""
    pixels = level_pixels(view.keys[list(view.frames)])
    pixels = np.pad(pixels, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=128)
    return np.concatenate(list(pixels), axis=1)[:, :-1]


def spread(count: int, most: int) -> tuple[int, ...]:
    """At most `most` of the indices below `count`, evenly spread, the first and last included."""
    return tuple(int(i) for i in np.unique(np.linspace(0, count - 1, most).round()))
