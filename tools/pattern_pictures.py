"""Draws the pictures of docs/patterns.md: every kind of pattern on the grid of a real video.

`python -m tools.pattern_pictures`
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image

from ajour import (
    Captured,
    Diagonal,
    Full,
    MultiDiagonal,
    Pyramid,
    Skip,
    Stripe,
    TokenGrid,
    Window,
)
from ajour.capture import capture
from ajour.lowering import density
from ajour.patterns import GeometricPattern
from ajour.pipelines.draw import show_levels
from ajour.pipelines.drawing import LEVEL_COLOURS, LEVEL_NAMES, pattern_view

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ajour import Pattern
    from ajour.pipelines.drawing import PatternView

FOLDER = Path(__file__).parents[1] / "docs" / "images" / "patterns"

GRID = TokenGrid(21, 30, 52)
"""Wan 2.1 at 480p with 81 frames."""

QUERY = (10, 13, 22)
"""(t, h, w) of the query whose keys are shown."""

FRAMES = (0, 8, 10, 11, 16)
"""The frames that are shown."""

PATTERNS: tuple[Pattern, ...] = (
    Full(),
    Skip(),
    Window(2, 4, 6),
    Diagonal(1.0),
    MultiDiagonal(2, 4),
    Stripe(4),
    Pyramid(1, 4, 5),
    Captured((0.05, 0.15, 0.3, 0.6)),
)

MARK = "#e6001f"


def draw(pattern: Pattern, path: Path) -> None:
    """Draw one pattern: all blocks, and the keys of one query, as defined and as computed.

    Args:
        pattern: the pattern; a captured pattern is measured on `moving_disc`.
        path: the PNG file.
    """
    if isinstance(pattern, GeometricPattern):
        view = pattern_view(pattern, GRID, query=QUERY)
        above, name, share = defined_keys(pattern), "definition", density(pattern, GRID)
    else:
        assert isinstance(pattern, Captured)
        states = moving_disc()
        levels = capture(states, states, GRID, pattern)[0].numpy()
        view = pattern_view(pattern, GRID, levels, QUERY)
        above, name, share = attention_of(states), "attention", pattern.density
    assert view is not None
    figure = plt.figure(figsize=(11, 3.7), layout="constrained")
    figure.suptitle(
        f"{pattern}\n{pattern.order} order, density {share:.3f} on {GRID} tokens", fontsize=10
    )
    left, right = figure.subfigures(1, 2, width_ratios=[1, 2.6])
    draw_blocks(left, view)
    draw_frames(right, {name: above, "its block's keys": view.keys})
    shown = [level for level in (0, 1, 2, 3, -1) if (view.blocks == level).any()]
    handles: list[Any] = [
        Patch(facecolor=LEVEL_COLOURS[level + 1], edgecolor="#888888", label=LEVEL_NAMES[level + 1])
        for level in shown
    ]
    handles.append(Line2D([], [], color=MARK, marker="+", ls="", ms=10, mew=2, label="query"))
    handles.append(Line2D([], [], color=MARK, marker=">", ls="", label="its block's row"))
    figure.legend(handles=handles, loc="outside lower center", ncols=7, frameon=False, fontsize=9)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(96, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def draw_blocks(panel: Any, view: PatternView) -> None:
    """The block map on a figure; an arrow points at the row of the query's block."""
    axis = panel.subplots()
    show_levels(axis, view.blocks)
    axis.set(xlabel="key block", ylabel="query block")
    axis.set_title("blocks of 128 tokens", fontsize=10)
    axis.annotate(
        "", (-1, view.query_block), (-22, view.query_block),
        arrowprops={"arrowstyle": "-|>", "color": MARK, "lw": 1.5}, annotation_clip=False,
    )  # fmt: skip


def draw_frames(panel: Any, rows: dict[str, NDArray[Any]]) -> None:
    """The keys of the query in some frames, a row of frames for each of several arrays.

    Args:
        panel: a figure or subfigure.
        rows: by name, (frames, height, width): levels as integers, or attention as floats from 0
            to 1.
    """
    axes = panel.subplots(len(rows), len(FRAMES), squeeze=False)
    for row, (name, keys) in zip(axes, rows.items(), strict=True):
        for axis, frame in zip(row, FRAMES, strict=True):
            if keys.dtype.kind == "f":
                axis.imshow(keys[frame], cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
            else:
                show_levels(axis, keys[frame])
            axis.set(xticks=[], yticks=[])
            if frame == QUERY[0]:
                axis.plot(QUERY[2], QUERY[1], "+", color=MARK, ms=10, mew=2)
        row[0].set_ylabel(f"{name}\n\nh", fontsize=9)
    for top, bottom, frame in zip(axes[0], axes[-1], FRAMES, strict=True):
        top.set_title(f"frame {frame}", fontsize=10)
        bottom.set_xlabel("w", fontsize=9)


def defined_keys(pattern: GeometricPattern) -> NDArray[np.int8]:
    """The level of every key for the query by the pattern's definition: (frames, height, width)."""
    keys = np.indices(GRID.shape).reshape(3, -1).T
    levels = [pattern.level(np.array(QUERY), key, GRID) for key in keys]
    return np.array(levels, dtype=np.int8).reshape(GRID.shape)


def moving_disc() -> torch.Tensor:
    """Queries, and keys, of a made-up head that separates a moving disc from the background.

    Returns:
        (1, tokens, 1, 24): the rough position of a token, and whether it is on the disc.
    """
    t, h, w = np.indices(GRID.shape).reshape(3, -1)
    distance = np.hypot(h - QUERY[1], w - QUERY[2] - 1.6 * (t - QUERY[0]))
    disc = 1 / (1 + np.exp(distance - 6))
    rng = np.random.default_rng(0)
    waves = rng.normal(size=(3, 10)) / np.array([[12], [10], [16]])
    phases = np.stack((t, h, w), axis=1) @ waves
    ground = (1 - disc)[:, None] * np.concatenate((np.cos(phases), np.sin(phases)), axis=1)
    kind = np.stack((4 * disc, 1 - disc), axis=1)
    states = np.concatenate((2.2 * ground, 2 * kind, np.zeros((len(t), 2))), axis=1)
    return torch.from_numpy(states).float()[None, :, None]


def attention_of(states: torch.Tensor) -> NDArray[np.float32]:
    """The query's attention to every key, scaled to a maximum of 1: (frames, height, width)."""
    query = int(np.ravel_multi_index(QUERY, GRID.shape))
    logits = states[0, :, 0] @ states[0, query, 0] / states.shape[-1] ** 0.5
    weights = (logits - logits.max()).exp()
    return np.asarray(weights.numpy().reshape(GRID.shape), dtype=np.float32)


def main() -> None:
    """Draw every pattern."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for pattern in PATTERNS:
        draw(pattern, FOLDER / f"{pattern.kind}.png")


if __name__ == "__main__":
    main()
