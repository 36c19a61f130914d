"""`full`: every key, exactly. What a head keeps when nothing sparser is good enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ajour.patterns.base import ExactPattern

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ajour.grid import TokenGrid


@dataclass(frozen=True)
class Full(ExactPattern):
    """All keys."""

    kind: ClassVar[str] = "full"
    sees: ClassVar[str] = "everything"
    order: ClassVar[str] = "raster"

    def allows(self, query: NDArray[np.int64], key: NDArray[np.int64], grid: TokenGrid) -> bool:
        """Always."""
        return True

    def video_blocks(self, grid: TokenGrid) -> NDArray[np.bool_]:
        """Every block."""
        return np.ones((grid.video_blocks, grid.video_blocks), dtype=bool)
