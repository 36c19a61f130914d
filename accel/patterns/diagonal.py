"""`diagonal`: a band on the main diagonal in raster order, that is, neighbouring frames.

The diagonal mode of Sparse-vDiT (arXiv 2506.03065), with the width in frames instead, so that it
means the same at every resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ajour.grid import BLOCK
from ajour.patterns.base import MOST, ExactPattern, frame_keys
from ajour.quoting import quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ajour.grid import TokenGrid


@dataclass(frozen=True)
class Diagonal(ExactPattern):
    """Keys at most `frames` frames away in raster order.

    Args:
        frames: half-width of the band in frames; fractions are rounded to whole tokens.
        first_frame: whether every query also attends to the whole first frame.
    """

    kind: ClassVar[str] = "diagonal"
    sees: ClassVar[str] = "the frames near the query's frame"
    order: ClassVar[str] = "raster"

    frames: float
    first_frame: bool = False

    def __post_init__(self) -> None:
        number = isinstance(self.frames, int | float) and not isinstance(self.frames, bool)
        if not number or not 0 <= self.frames <= MOST:
            raise ValueError(
                f"diagonal: frames must be a number from 0 to {MOST}, got {quoted(self.frames)}"
            )
        self.check_flag("first_frame")

    def band(self, grid: TokenGrid) -> int:
        """Half-width of the band in tokens."""
        return round(self.frames * grid.height * grid.width)

    def allows(self, query: NDArray[np.int64], key: NDArray[np.int64], grid: TokenGrid) -> bool:
        """Within the band, or a key of the first frame if those are kept."""
        t, h, w = query - key
        distance = abs((int(t) * grid.height + int(h)) * grid.width + int(w))
        return distance <= self.band(grid) or bool(self.first_frame and key[0] == 0)

    def video_blocks(self, grid: TokenGrid) -> NDArray[np.bool_]:
        """Blocks whose token ranges come within the band of each other."""
        start = np.arange(grid.video_blocks) * BLOCK
        stop = np.minimum(start + BLOCK, grid.video_tokens) - 1
        gap = np.maximum(start[:, None] - stop[None, :], start[None, :] - stop[:, None])
        selected: NDArray[np.bool_] = gap <= self.band(grid)
        if self.first_frame:
            selected |= frame_keys(grid, self.order, np.arange(grid.frames) == 0)
        return selected
