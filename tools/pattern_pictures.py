"""Draws the pictures of docs/patterns.md: one pattern of every family on the grid of a real video.

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
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image

from ajour import (
    BLOCK,
    Captured,
    Diagonal,
    Full,
    MultiDiagonal,
    Pyramid,
    Skip,
    Stripe,
    TokenGrid,
    Window,
    lower,
    order,
)
from ajour.capture import capture
from ajour.lowering import level_map
from ajour.patterns import GeometricPattern
from ajour.pipelines.draw import selected_keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ajour import Pattern

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

COLOURS = ("#f1f1f1", "#08306b", "#2a7ab9", "#7fb8da", "#c3dbee")
"""Of keys left out, exact ones, and those pooled 2x, 4x and 8x."""

NAMES = ("not attended", "exact", "mean-pooled 2x", "mean-pooled 4x", "mean-pooled 8x")

MARK = "#e6001f"


def draw(pattern: Pattern, path: Path) -> None:
    """Draw one pattern: all blocks, and the keys of one query, as defined and as computed.

    Args:
        pattern: the pattern; a captured one is measured on `moving_disc`.
        path: the PNG file.
    """
    query = int(np.ravel_multi_index(QUERY, GRID.shape))
    place = np.argsort(order(pattern.order, GRID.shape))
    own = int(place[query]) // BLOCK
    if isinstance(pattern, GeometricPattern):
        blocks, seen = level_map(pattern, GRID), selected_keys(pattern, GRID, query)
        above = defined_keys(pattern)
        density = lower([pattern], GRID).density()
    else:
        assert isinstance(pattern, Captured)
        states = moving_disc()
        blocks = capture(states, states, GRID, pattern)[0].numpy()
        seen = blocks[own][place // BLOCK].reshape(GRID.shape)
        above = attention_of(states, query)
        density = pattern.density
    figure = plt.figure(figsize=(11, 3.7), layout="constrained")
    figure.suptitle(
        f"{pattern}\n{pattern.order} order, density {density:.3f} on {GRID} tokens", fontsize=10
    )
    left, right = figure.subfigures(1, 2, width_ratios=[1, 2.6])
    draw_blocks(left, blocks, own)
    draw_frames(right, above, seen, "attention" if above.dtype.kind == "f" else "definition")
    shown = [level for level in range(-1, 4) if (blocks == level).any()]
    handles: list[Any] = [
        Patch(facecolor=COLOURS[level + 1], edgecolor="#888888", label=NAMES[level + 1])
        for level in sorted(shown, key=lambda level: level % 5)
    ]
    handles.append(Line2D([], [], color=MARK, marker="+", ls="", ms=10, mew=2, label="query"))
    handles.append(Line2D([], [], color=MARK, marker=">", ls="", label="its block's row"))
    figure.legend(handles=handles, loc="outside lower center", ncols=7, frameon=False, fontsize=9)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(96, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def draw_blocks(panel: Any, blocks: NDArray[np.int8], own: int) -> None:
    """The block map; an arrow points at the row of the query's block.

    Args:
        panel: a figure or subfigure.
        blocks: (Nv, Nv), level of each key block for each query block, -1 where dropped.
        own: the query's block.
    """
    axis = panel.subplots()
    show_levels(axis, blocks)
    axis.set(xlabel="key block", ylabel="query block")
    axis.set_title("blocks of 128 tokens", fontsize=10)
    axis.annotate(
        "", (-1, own), (-22, own), arrowprops={"arrowstyle": "-|>", "color": MARK, "lw": 1.5},
        annotation_clip=False,
    )  # fmt: skip


def draw_frames(panel: Any, above: NDArray[Any], below: NDArray[np.int8], what: str) -> None:
    """The keys of the query on some frames, twice.

    Args:
        panel: a figure or subfigure.
        above: levels by the definition, or attention as floats from 0 to 1: (frames, height,
            width).
        below: levels that its block computes, same shape.
        what: what `above` is.
    """
    axes = panel.subplots(2, len(FRAMES), squeeze=False)
    for column, frame in enumerate(FRAMES):
        for axis, keys in zip(axes[:, column], (above, below), strict=True):
            if keys.dtype.kind == "f":
                axis.imshow(keys[frame], cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
            else:
                show_levels(axis, keys[frame])
            axis.set(xticks=[], yticks=[])
            if frame == QUERY[0]:
                axis.plot(QUERY[2], QUERY[1], "+", color=MARK, ms=10, mew=2)
        axes[0, column].set_title(f"frame {frame}", fontsize=10)
        axes[1, column].set_xlabel("w", fontsize=9)
    for axis, name in zip(axes[:, 0], (f"{what}\n\nh", "its block's keys\n\nh"), strict=True):
        axis.set_ylabel(name, fontsize=9)


def show_levels(axis: Any, levels: NDArray[np.int8]) -> None:
    """An image of levels, each in its colour."""
    colours = ListedColormap(COLOURS)
    axis.imshow(levels + 1, cmap=colours, vmin=-0.5, vmax=4.5, interpolation="nearest")


def defined_keys(pattern: GeometricPattern) -> NDArray[np.int8]:
    """The level of every key for the query by the pattern's definition: (frames, height, width)."""
    keys = np.indices(GRID.shape).reshape(3, -1).T
    levels = [pattern.level(np.array(QUERY), key, GRID) for key in keys]
    return np.array(levels, dtype=np.int8).reshape(GRID.shape)


def moving_disc() -> torch.Tensor:
    """Queries, and keys, of a made-up head that tells a moving disc from the ground behind it.

    Returns:
        (1, tokens, 1, 24): where a token is, roughly, and whether it is on the disc.
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


def attention_of(states: torch.Tensor, query: int) -> NDArray[np.float32]:
    """What every key receives from one query, the most being 1: (frames, height, width)."""
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
