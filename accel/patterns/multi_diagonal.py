"""`multi_diagonal`: the same place through time, many diagonals of the raster map.

The multi-diagonal mode of Sparse-vDiT (arXiv 2506.03065): in column order (h, w, t) the diagonals
become one band.
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
class MultiDiagonal(ExactPattern):
    """Keys of every frame whose place is near the query's.

    Args:
        height: half-width along rows, in tokens.
        width: half-width along columns, in tokens.
    """

    kind: ClassVar[str] = "multi_diagonal"
    sees: ClassVar[str] = "the same place through all frames"
    order: ClassVar[str] = "column"

    height: int
    width: int

    def __post_init__(self) -> None:
        self.check_integer("height", 0)
        self.check_integer("width", 0)

    def allows(self, query: NDArray[np.int64], key: NDArray[np.int64], grid: TokenGrid) -> bool:
        """Near in place, at any time."""
        return bool((np.abs(query - key)[1:] <= (self.height, self.width)).all())

    def video_blocks(self, grid: TokenGrid) -> NDArray[np.bool_]:
        """Blocks that touch the place of any query of the block."""
        return box_neighbours(grid, self.order, (grid.frames, self.height, self.width))
