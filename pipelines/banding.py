"""Banding: faint bands in regions that are flat, such as a clear sky or a plain wall."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ajour.pipelines.quality import check_shapes

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLAT_SLOPE = 1.0
"""A region is flat if its mean gradient is below so many levels per pixel."""

REGION = 17
"""Height and width of the region around a pixel, in pixels."""

SMOOTH = 4.0
"""Standard deviation of the low-pass filter, in pixels: finer differences, such as noise, fade.
Bands have the height of a token (usually 16 pixels) or more."""

LIMIT = 8.0
"""A larger difference of a pixel counts as so many levels: it is changed content, not a band."""


def banding(video: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Standard deviation of the low-passed difference where the reference is flat.

    Attention is sparse by blocks of tokens, so blocks of a flat region can end up slightly brighter
    or darker than their neighbours. The difference of two videos is taken frame by frame and
    channel by channel, and smoothed over flat pixels only. A pixel is flat if the gradient of the
    reference, largest channel, is small in the mean of the region around it. Differences are from
    the frame's median, so a uniform shift of brightness or colour is no banding: PSNR and the
    perceptual distance count it.

    Args:
        video: (F,H,W,3) in [0,1].
        reference: same shape.

    Returns:
        Levels of 255, at most 8; 0 if nothing is flat.
    """
    import cv2

    check_shapes(video, reference)
    total, count = 0.0, 0
    for frame, still in zip(video, reference, strict=True):
        slopes = (cv2.Scharr(still, cv2.CV_32F, *axis, scale=255 / 32) for axis in ((1, 0), (0, 1)))
        slope = np.hypot(*slopes).max(axis=-1)
        flat = cv2.blur(slope, (REGION, REGION)) < FLAT_SLOPE
        if not flat.any():
            continue
        weights = cv2.GaussianBlur(flat.astype(np.float32), (0, 0), SMOOTH)[flat, None]
        difference = 255 * (frame - still)
        difference -= np.median(difference[flat], axis=0)
        difference = np.clip(difference, -LIMIT, LIMIT) * flat[..., None]
        bands = cv2.GaussianBlur(difference, (0, 0), SMOOTH)[flat] / weights
        total += float(np.square(bands - bands.mean(axis=0)).sum(dtype=np.float64))
        count += bands.size
    return (total / count) ** 0.5 if count else 0.0
