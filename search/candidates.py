"""The patterns that a search tries: every family at several widths.

Widths are shares of the grid, so that the same list suits any size. To try more patterns, add
entries to the dictionary: the rest of the search asks only for names and patterns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ajour.lowering import density, level_map
from ajour.patterns import Captured, Diagonal, Full, MultiDiagonal, Pyramid, Skip, Stripe, Window

if TYPE_CHECKING:
    from ajour.grid import TokenGrid
    from ajour.patterns import GeometricPattern, Pattern

EXACT_SHARES = (0.03, 0.08, 0.15, 0.25, 0.4)
"""Of captured candidates: key blocks that stay exact; all others are pooled 8x."""

FULL = "full"
"""The candidate that changes nothing."""


def default_candidates(grid: TokenGrid) -> dict[str, Pattern]:
    """Candidates for a grid by name, `full` first.

    Those that lower to the blocks of an earlier one, as wide ones do on small grids, are left out,
    and so are captured ones that would compute everything.
    """
    distinct: dict[tuple[str, bytes], str] = {}
    patterns = _geometric(grid)
    for name, pattern in patterns.items():
        levels = level_map(pattern, grid)
        whole = "" if (levels == levels[0, 0]).all() else pattern.order
        distinct.setdefault((whole, levels.tobytes()), name)
    curves = ("bisection", "raster", "column") if grid.frames > 1 else ("bisection", "raster")
    captured = {
        f"captured-{curve}-{round(100 * share)}": Captured((share,) * 3 + (1.0,), curve=curve)
        for curve in curves
        for share in EXACT_SHARES
    }
    found: dict[str, Pattern] = {name: patterns[name] for name in distinct.values()}
    found |= {name: pattern for name, pattern in captured.items() if density(pattern, grid) < 1}
    return found


def _geometric(grid: TokenGrid) -> dict[str, GeometricPattern]:
    frames, height, width = grid.shape

    def part(extent: int, share: float) -> int:
        return max(1, round(share * extent))

    near = {"1": 1 / 16, "2": 1 / 8, "3": 3 / 16}
    box = {name: (part(height, share), part(width, share)) for name, share in near.items()}
    found: dict[str, GeometricPattern] = {FULL: Full(), "skip": Skip()}
    if frames > 1:
        bands = {"1": 0.02, "2": 0.04, "3": 0.08, "4": 0.115, "5": 0.155, "6": 0.23}
        for name, share in bands.items():
            found[f"diagonal-{name}"] = Diagonal(round(share * frames, 2))
        for name in ("3", "5"):
            found[f"diagonal-first-{name}"] = Diagonal(round(bands[name] * frames, 2), True)
        found["multi-diagonal-0"] = MultiDiagonal(0, 0)
        found["multi-diagonal-row"] = MultiDiagonal(0, width)
        found["multi-diagonal-rows"] = MultiDiagonal(part(height, 1 / 16), width)
        for name in ("1", "2", "3"):
            found[f"multi-diagonal-{name}"] = MultiDiagonal(*box[name])
        for stride in (3, 4, 6):
            found[f"stripe-{stride}"] = Stripe(stride)
        found["window-time"] = Window(frames, *box["1"])
        for name, span in {"frame": 0.0, "frames-1": 0.08, "frames-2": 0.155}.items():
            found[f"pyramid-{name}"] = Pyramid(
                round(span * frames), height, width, growth=1.1, curve="raster"
            )
        found["pyramid-rows"] = Pyramid(0, part(height, 1 / 4), width, curve="raster")
        for name, (rows, columns) in {
            "place-0": (0, 0),
            "place-1": box["1"],
            "place-row": (0, width),
            "place-rows": (part(height, 1 / 16), width),
        }.items():
            found[f"pyramid-{name}"] = Pyramid(frames, rows, columns, growth=1.1, curve="column")
        found["pyramid-time"] = Pyramid(frames, 0, 0, growth=1.1)
    for name in ("1", "3"):
        found[f"window-{name}"] = Window(part(frames, 0.08), *box[name])
    found["pyramid-0"] = Pyramid(0, 0, 0, growth=1.1)
    found["pyramid-0-wide"] = Pyramid(0, 0, 0, growth=2.0)
    found["pyramid-1"] = Pyramid(0, *box["1"], growth=1.1)
    found["pyramid-2"] = Pyramid(part(frames, 0.08), *box["1"], growth=1.1)
    return found
