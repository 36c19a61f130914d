"""The patterns that a search tries: every kind at several widths.

Widths are shares of the grid, so the same list suits any size. To try more patterns, add entries
to the dictionary: the rest of the search needs only names and patterns.

A pattern is made of whole blocks, so it covers more than its widths say, and its error is measured
on everything it covers. Every candidate therefore has the greatest widths that lower to its blocks:
on another grid every query then keeps at least what every query kept here.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

from ajour.grid import BLOCK
from ajour.lowering import density, level_map
from ajour.patterns import Captured, Diagonal, Full, MultiDiagonal, Pyramid, Skip, Stripe, Window
from ajour.pipelines.auto import EXACT_SHARES

if TYPE_CHECKING:
    from ajour.grid import TokenGrid
    from ajour.patterns import GeometricPattern, Pattern

WHOLE = 1024
"""A half-width in tokens that spans an axis of any grid."""


def default_candidates(grid: TokenGrid) -> dict[str, Pattern]:
    """Candidates for a grid by name, `full` first.

    Left out are patterns that lower to the same blocks as an earlier one, as wide patterns do on
    small grids, and captured patterns that would compute everything.
    """
    distinct: dict[tuple[str, bytes], str] = {}
    patterns = {name: widest(pattern, grid) for name, pattern in _geometric(grid).items()}
    for name, pattern in patterns.items():
        levels = level_map(pattern, grid)
        whole = "" if (levels == levels[0, 0]).all() else pattern.order
        distinct.setdefault((whole, levels.tobytes()), name)
    orders = ("bisection", "raster", "column") if grid.frames > 1 else ("bisection", "raster")
    captured = {
        f"captured-{order}-{round(100 * share)}": Captured((share,) * 3 + (1.0,), order=order)
        for order in orders
        for share in EXACT_SHARES
    }
    candidates: dict[str, Pattern] = {name: patterns[name] for name in distinct.values()}
    return candidates | {
        name: pattern for name, pattern in captured.items() if density(pattern, grid) < 1
    }


def widest(pattern: GeometricPattern, grid: TokenGrid) -> GeometricPattern:
    """The pattern with the greatest widths that lower to the same blocks on a grid.

    The grid's exact tokens do not matter. Patterns without widths in tokens or frames stay the
    same; a width that grew to span its axis becomes `WHOLE`.
    """
    if isinstance(pattern, Diagonal):
        band = -(-pattern.band(grid) // BLOCK) * BLOCK
        frames = int(1000 * band / (grid.height * grid.width)) / 1000
        return replace(pattern, frames=max(pattern.frames, frames))
    blocks = pattern.video_levels(grid)
    axes = [axis.name for axis in fields(pattern) if axis.name in ("frames", "height", "width")]
    growing = True
    while growing:
        growing = False
        for axis in axes:
            width, most = getattr(pattern, axis), getattr(grid, axis) - 1
            if width < most:
                wider = replace(pattern, **{axis: width + 1 if width + 1 < most else WHOLE})
                if (wider.video_levels(grid) == blocks).all():
                    pattern, growing = wider, True
    return pattern


def _geometric(grid: TokenGrid) -> dict[str, GeometricPattern]:
    frames, height, width = grid.shape

    def part(extent: int, share: float) -> int:
        return max(1, round(share * extent))

    near = {"1": 1 / 16, "2": 1 / 8, "3": 3 / 16}
    box = {name: (part(height, share), part(width, share)) for name, share in near.items()}
    patterns: dict[str, GeometricPattern] = {"full": Full(), "skip": Skip()}
    if frames > 1:
        bands = {"1": 0.02, "2": 0.04, "3": 0.08, "4": 0.115, "5": 0.155, "6": 0.23}
        for name, share in bands.items():
            patterns[f"diagonal-{name}"] = Diagonal(round(share * frames, 2))
        for name in ("3", "5"):
            patterns[f"diagonal-first-{name}"] = Diagonal(round(bands[name] * frames, 2), True)
        patterns["multi-diagonal-0"] = MultiDiagonal(0, 0)
        patterns["multi-diagonal-row"] = MultiDiagonal(0, WHOLE)
        patterns["multi-diagonal-rows"] = MultiDiagonal(part(height, 1 / 16), WHOLE)
        for name in ("1", "2", "3"):
            patterns[f"multi-diagonal-{name}"] = MultiDiagonal(*box[name])
        for stride in (3, 4, 6):
            patterns[f"stripe-{stride}"] = Stripe(stride)
        patterns["window-time"] = Window(WHOLE, *box["1"])
        for name, span in {"frame": 0.0, "frames-1": 0.08, "frames-2": 0.155}.items():
            patterns[f"pyramid-{name}"] = Pyramid(
                round(span * frames), WHOLE, WHOLE, growth=1.1, order="raster"
            )
        patterns["pyramid-rows"] = Pyramid(0, part(height, 1 / 4), WHOLE, order="raster")
        for name, (rows, columns) in {
            "place-0": (0, 0),
            "place-1": box["1"],
            "place-row": (0, WHOLE),
            "place-rows": (part(height, 1 / 16), WHOLE),
        }.items():
            patterns[f"pyramid-{name}"] = Pyramid(WHOLE, rows, columns, growth=1.1, order="column")
        patterns["pyramid-time"] = Pyramid(WHOLE, 0, 0, growth=1.1)
    for name in ("1", "3"):
        patterns[f"window-{name}"] = Window(part(frames, 0.08), *box[name])
    patterns["pyramid-0"] = Pyramid(0, 0, 0, growth=1.1)
    patterns["pyramid-0-wide"] = Pyramid(0, 0, 0, growth=2.0)
    patterns["pyramid-1"] = Pyramid(0, *box["1"], growth=1.1)
    patterns["pyramid-2"] = Pyramid(part(frames, 0.08), *box["1"], growth=1.1)
    return patterns
