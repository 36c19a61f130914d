"""How close two videos are: PSNR and SSIM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


BEST_DB = 99.0
"""Written for equal videos, whose PSNR is infinite, which JSON cannot say."""


def psnr(video: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Peak signal-to-noise ratio over all frames.

    Args:
        video: (F,H,W,3) in [0,1].
        reference: same shape.

    Returns:
        Decibels; infinity for equal videos.
    """
    _same_shape(video, reference)
    error = float(np.square(video.astype(np.float64) - reference).mean())
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def ssim(video: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Structural similarity, mean over frames, with the Gaussian window of Wang et al. (2004).

    Args:
        video: (F,H,W,3) in [0,1], at least 11 pixels high and wide.
        reference: same shape.
    """
    from skimage.metrics import structural_similarity

    _same_shape(video, reference)
    scores = [
        structural_similarity(
            one,
            other,
            data_range=1.0,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for one, other in zip(video, reference, strict=True)
    ]
    return float(np.mean(scores))


def _same_shape(video: NDArray[np.float32], reference: NDArray[np.float32]) -> None:
    if video.shape != reference.shape or video.ndim != 4:
        raise ValueError(
            f"videos must be (F,H,W,3) of the same shape, got {video.shape} and {reference.shape}"
        )
