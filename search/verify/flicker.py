"""Flicker: difference between a video's frame and the next frame moved back along the motion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def warp_error(video: NDArray[np.uint8], reference: NDArray[np.uint8] | None = None) -> float:
    """Temporal warp error: mean squared difference along the optical flow of a reference.

    The measure of Lai et al. (2018, Learning Blind Video Temporal Consistency), by OpenCV's dense
    inverse search. Pixels whose forward and backward flow disagree (occlusions) do not count.

    Args:
        video: (F,H,W,3).
        reference: same shape; its motion is used. The video itself by default.

    Returns:
        Mean squared difference, of values in [0,1]; 0 for fewer than two frames.
    """
    import cv2

    reference = video if reference is None else reference
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in reference]
    height, width = video.shape[1:3]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    total, count = 0.0, 0
    for index in range(len(video) - 1):
        forward = flow.calc(gray[index], gray[index + 1], None)
        backward = flow.calc(gray[index + 1], gray[index], None)
        target = grid + forward
        returned = cv2.remap(backward, target, None, cv2.INTER_LINEAR)
        there = (target >= 0).all(-1) & (target <= (width - 1, height - 1)).all(-1)
        seen = there & (np.square(forward + returned).sum(-1) < 1.0)
        moved = cv2.remap(video[index + 1], target, None, cv2.INTER_LINEAR)
        difference = (moved.astype(np.float64) - video[index])[seen] / 255
        total += float(np.square(difference).sum())
        count += difference.size
    return total / count if count else 0.0
