"""`skip`: the head's output for video tokens is 0 (Sparse-vDiT, arXiv 2506.03065)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ajour.patterns.base import ExactPattern

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ajour.grid import TokenGrid


@dataclass(frozen=True)
class Skip(ExactPattern):
    """No keys for video queries, not even exact tokens. Exact tokens still attend to everything."""

    kind: ClassVar[str] = "skip"
    sees: ClassVar[str] = "nothing"
    order: ClassVar[str] = "raster"

    def allows(self, query: NDArray[np.int64], key: NDArray[np.int64], grid: TokenGrid) -> bool:
        """Never."""
        return False

    def video_blocks(self, grid: TokenGrid) -> NDArray[np.bool_]:
        """No block."""
        return np.zeros((grid.video_blocks, grid.video_blocks), dtype=bool)
