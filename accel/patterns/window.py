"""`window`: a local box around each query, in an order that keeps neighbours together.

Scale-DiT (arXiv 2510.16325) uses windows along a Hilbert curve; here the box is three-dimensional
and the blocks come from recursive bisection by default, which are compacter than the curve's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ajour.patterns.base import ExactPattern, box_neighbours

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ajour.grid import TokenGrid


@dataclass(frozen=True)
class Window(ExactPattern):
    """Keys within a box around the query.

    Args:
        frames: half-width along time, in tokens.
        height: half-width along rows, in tokens.
        width: half-width along columns, in tokens.
        order: the order that forms the blocks, `bisection` or `hilbert`.
    """

    kind: ClassVar[str] = "window"
    sees: ClassVar[str] = "a box around the query in space and time"

    frames: int
    height: int
    width: int
    order: str = "bisection"

    def __post_init__(self) -> None:
        for name in ("frames", "height", "width"):
            self.check_integer(name, 0)
        self.check_choice("order", ("bisection", "hilbert"))

    def allows(self, query: NDArray[np.int64], key: NDArray[np.int64], grid: TokenGrid) -> bool:
        """Within the box."""
        return bool((np.abs(query - key) <= (self.frames, self.height, self.width)).all())

    def video_blocks(self, grid: TokenGrid) -> NDArray[np.bool_]:
        """Blocks that touch the box of any query of the block."""
        return box_neighbours(grid, self.order, (self.frames, self.height, self.width))
