"""What one query attends to, drawn over the frames of the video itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ajour.pipelines.drawing import level_pixels, spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.pipelines.drawing import PatternView

    Frames = NDArray[np.uint8]
    """(n,H,W,3)."""

SHOWN = 5
"""Frames that are shown at most."""

SIDE = 176
"""Longer side of a shown frame, pixels, rounded to whole tokens."""

GAP = 4
"""Pixels between two frames."""

FADED, TINT = 0.6, 0.6
"""Share of white in tokens that are not attended, and of the level's colour in all others."""

MARK = (255, 213, 74)
"""Colour of the frame around the query."""


def frames_of(grid: TokenGrid, video_frames: int) -> list[int]:
    """The video frames for the frames of a grid that are shown."""
    last = max(1, grid.frames - 1)
    return [round(t * (video_frames - 1) / last) for t in spread(grid.frames, SHOWN)]


def small(frames: Frames) -> Frames:
    """Frames at the size in which they are kept for drawing."""
    factor = SIDE / max(frames.shape[1:3])
    height, width = (max(1, round(side * factor)) for side in frames.shape[1:3])
    return np.stack([_resized(frame, height, width) for frame in frames])


def standing_out(frames: Frames, grid: TokenGrid) -> tuple[int, int, int]:
    """(t, h, w) of the token in the middle shown frame that differs most from the frame's median.

    A query on the background would tell little.
    """
    middle = len(frames) // 2
    tokens = _resized(frames[middle], grid.height, grid.width).astype(float)
    away = np.square(tokens - np.median(tokens, axis=(0, 1))).sum(axis=-1)
    row, column = np.unravel_index(int(away.argmax()), away.shape)
    return spread(grid.frames, SHOWN)[middle], int(row), int(column)


def over_frames(view: PatternView, frames: Frames) -> NDArray[np.uint8]:
    """The frames side by side; tokens that are attended have the colour of their level.

    Args:
        view: of a pattern, with as many frames as there are.
        frames: of the video, at these frames of the grid.
    """
    height, width = view.keys.shape[1:]
    token = max(2, round(SIDE / max(height, width)))
    pictures = []
    for t, frame in zip(view.frames, frames, strict=True):
        levels = view.keys[t].repeat(token, axis=0).repeat(token, axis=1)
        under = _resized(frame, height * token, width * token).astype(float)
        faded = (1 - FADED) * under + FADED * 255
        tinted = (1 - TINT) * under + TINT * level_pixels(levels)
        picture = np.where(levels[..., None] >= 0, tinted, faded).round().astype(np.uint8)
        if t == view.query[0]:
            _mark(picture, view.query[1] * token, view.query[2] * token, token)
        pictures.append(np.pad(picture, ((0, 0), (0, GAP), (0, 0)), constant_values=255))
    return np.concatenate(pictures, axis=1)[:, :-GAP]


def _mark(picture: NDArray[np.uint8], top: int, left: int, token: int) -> None:
    """Frame a token, at its outside."""
    inside = picture[top : top + token, left : left + token].copy()
    edge = 2
    rows = slice(max(0, top - edge), top + token + edge)
    picture[rows, max(0, left - edge) : left + token + edge] = MARK
    picture[top : top + token, left : left + token] = inside


def _resized(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    import cv2

    method = cv2.INTER_AREA if width < frame.shape[1] else cv2.INTER_LINEAR
    return np.asarray(
        cv2.resize(np.ascontiguousarray(frame), (width, height), interpolation=method)
    )
