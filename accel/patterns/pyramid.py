"""`pyramid`: near keys exact, keys farther away mean-pooled ever more coarsely.

Pyramid Sparse Attention (arXiv 2512.04025) pools keys 2x, 4x and 8x by their measured importance;
here the level follows from the distance on the grid, so it costs nothing at run time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ajour.lists import DROPPED
from ajour.orders import ORDERS
from ajour.patterns.base import GeometricPattern, box_neighbours
from ajour.quoting import quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ajour.grid import TokenGrid


@dataclass(frozen=True)
class Pyramid(GeometricPattern):
    """Nested boxes around the query: the first exact, the h-th pooled 2**h-fold.

    Args:
        frames: half-width of the exact box along time, in tokens.
        height: half-width along rows, in tokens.
        width: half-width along columns, in tokens.
        growth: each half-width, plus half a token, is this many times that of the box inside.
        levels: the highest pooling level, 1 to 3.
        tail: whether keys outside of all boxes are kept at the highest level, or dropped.
        order: the order that forms the blocks and the pooled groups, any of `ajour.ORDERS`.
    """

    kind: ClassVar[str] = "pyramid"
    sees: ClassVar[str] = "near keys exactly, far keys mean-pooled"

    frames: int
    height: int
    width: int
    growth: float = 2.0
    levels: int = 3
    tail: bool = True
    order: str = "bisection"

    def __post_init__(self) -> None:
        for name in ("frames", "height", "width"):
            self.check_integer(name, 0)
        self.check_integer("levels", 1, 3)
        self.check_flag("tail")
        growth = self.growth
        if isinstance(growth, bool) or not isinstance(growth, int | float) or not 1 < growth <= 64:
            raise ValueError(
                f"pyramid: growth must be a number over 1 up to 64, got {quoted(growth)}"
            )
        self.check_choice("order", ORDERS)

    def boxes(self) -> list[tuple[int, int, int]]:
        """Half-widths along (t, h, w) of the box of each level, 0 to `levels`."""
        scales = [self.growth**level for level in range(self.levels + 1)]
        near = (self.frames, self.height, self.width)
        return [tuple(int((n + 0.5) * s) for n in near) for s in scales]  # type: ignore[misc]

    def level(self, query: NDArray[np.int64], key: NDArray[np.int64], grid: TokenGrid) -> int:
        """The innermost box that holds the key."""
        distance = np.abs(query - key)
        for level, box in enumerate(self.boxes()):
            if (distance <= box).all():
                return level
        return self.levels if self.tail else DROPPED

    def video_levels(self, grid: TokenGrid) -> NDArray[np.int8]:
        """The innermost box of any query of the block that the key block touches."""
        total = grid.video_blocks
        levels = np.full((total, total), self.levels if self.tail else DROPPED, dtype=np.int8)
        for level, box in reversed(list(enumerate(self.boxes()))):
            levels[box_neighbours(grid, self.order, box)] = level
        return levels
