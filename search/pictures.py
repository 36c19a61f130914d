"""Small pictures of the report: block maps and frames, as data for `<img>`."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import numpy as np

from ajour.lowering import level_map
from ajour.patterns import GeometricPattern
from ajour.pipelines.draw import selected_keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.patterns import Pattern

SHADES = np.array(
    [[236, 239, 244], [46, 82, 125], [92, 133, 180], [150, 181, 214], [201, 217, 234]], np.uint8
)
"""Of dropped blocks, then of levels 0 to 3."""

FRAMES = 5
"""Frames of a contact sheet and of a pattern's picture."""


def block_map(pattern: Pattern, grid: TokenGrid) -> str | None:
    """The level of each key block (columns) for each query block (rows); None if measured only."""
    if not isinstance(pattern, GeometricPattern):
        return None
    return _png(SHADES[level_map(pattern, grid).astype(int) + 1])


def seen_keys(pattern: Pattern, grid: TokenGrid) -> str | None:
    """What the query in the middle of the grid sees, in a few frames side by side."""
    if not isinstance(pattern, GeometricPattern):
        return None
    middle = (grid.frames // 2 * grid.height + grid.height // 2) * grid.width + grid.width // 2
    picked = np.unique(np.linspace(0, grid.frames - 1, FRAMES).round().astype(int))
    seen = SHADES[selected_keys(pattern, grid, middle)[picked].astype(int) + 1]
    gap = np.full((len(picked), grid.height, 1, 3), 255, np.uint8)
    return _png(np.concatenate(np.concatenate([seen, gap], axis=2), axis=1)[:, :-1])


def contact_sheet(video: NDArray[np.uint8], width: int = 192) -> str:
    """A few frames side by side as JPEG.

    Args:
        video: (F,H,W,3).
        width: of a frame, pixels.
    """
    import cv2

    picked = np.unique(np.linspace(0, len(video) - 1, FRAMES).round().astype(int))
    size = (width, round(width * video.shape[1] / video.shape[2]))
    frames = [cv2.resize(video[i], size, interpolation=cv2.INTER_AREA) for i in picked]
    row = cv2.cvtColor(np.concatenate(frames, axis=1), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", row, [cv2.IMWRITE_JPEG_QUALITY, 88])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _png(pixels: NDArray[np.uint8]) -> str:
    import cv2

    _, data = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()
