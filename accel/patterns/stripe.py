"""`stripe`: the same global keys for every query: the first frame and strided anchor frames.

The vertical-stripe mode of Sparse-vDiT (arXiv 2506.03065). Heads may take different offsets, so
that together they cover every frame (the idea of S2-Attention).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ajour.patterns.base import ExactPattern, frame_keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ajour.grid import TokenGrid


@dataclass(frozen=True)
class Stripe(ExactPattern):
    """Keys of every `stride`-th frame.

    Args:
        stride: distance between anchor frames.
        offset: the first anchor frame.
        first_frame: whether the first frame is always an anchor.
    """

    kind: ClassVar[str] = "stripe"
    sees: ClassVar[str] = "the first frame and every n-th frame"
    order: ClassVar[str] = "raster"

    stride: int
    offset: int = 0
    first_frame: bool = True

    def __post_init__(self) -> None:
        self.check_integer("stride", 1)
        self.check_integer("offset", 0)
        self.check_flag("first_frame")
        if self.offset >= self.stride:
            raise ValueError(
                f"stripe: offset must be below stride, got offset {self.offset}, "
                f"stride {self.stride}"
            )

    def allows(self, query: NDArray[np.int64], key: NDArray[np.int64], grid: TokenGrid) -> bool:
        """A key of an anchor frame."""
        return bool(self._anchors(grid)[key[0]])

    def video_blocks(self, grid: TokenGrid) -> NDArray[np.bool_]:
        """Blocks that hold a token of an anchor frame."""
        keys = frame_keys(grid, self.order, self._anchors(grid))
        return np.broadcast_to(keys, (grid.video_blocks, grid.video_blocks)).copy()

    def _anchors(self, grid: TokenGrid) -> NDArray[np.bool_]:
        """Flagged frames. A clip too short to reach the offset keeps its last frame."""
        frames = np.arange(grid.frames)
        anchors: NDArray[np.bool_] = frames % self.stride == min(self.offset, grid.frames - 1)
        if self.first_frame:
            anchors |= frames == 0
        return anchors
