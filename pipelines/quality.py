"""How close two videos are: PSNR, SSIM and a perceptual distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ajour.pipelines.drawing import spread
from ajour.pipelines.measures import EQUAL_DB

if TYPE_CHECKING:
    from numpy.typing import NDArray


BEST_DB = EQUAL_DB
"""PSNR of equal videos in reports."""

MOST_DB = 98.99
"""Largest PSNR of videos that differ in reports."""

PERCEPTUAL_FRAMES = 8
"""Frames of a video whose perceptual distance is computed. With twice as many, the mean changes by
less than a hundredth."""


def psnr(video: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Peak signal-to-noise ratio over all frames.

    Args:
        video: (F,H,W,3) in [0,1].
        reference: same shape.

    Returns:
        Decibels; infinity for equal videos.
    """
    check_shapes(video, reference)
    error = float(np.square(video.astype(np.float64) - reference).mean())
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def reported(decibels: float) -> float:
    """A PSNR as reports have it: 99 for equal videos, less for all others."""
    return BEST_DB if decibels == float("inf") else min(decibels, MOST_DB)


def ssim(video: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Structural similarity, mean over frames, with the Gaussian window of Wang et al. (2004).

    Args:
        video: (F,H,W,3) in [0,1], at least 11 pixels high and wide.
        reference: same shape.
    """
    from skimage.metrics import structural_similarity

    check_shapes(video, reference)
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


def perceptual(video: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Perceptual distance, mean over pixels and over up to eight frames, evenly spread.

    LDR-FLIP by Andersson et al. (2020): how strong a difference looks to a person who flips between
    two images on a usual screen (67 pixels per degree of view). Computed on the CPU by NVIDIA's
    `flip-evaluator`, which needs no weights.

    Args:
        video: (F,H,W,3) in [0,1].
        reference: same shape.

    Returns:
        From 0, for equal videos, to 1.
    """
    from flip_evaluator import evaluate

    check_shapes(video, reference)
    distances = [
        evaluate(reference[index], video[index], "LDR", applyMagma=False, computeMeanError=False)[
            0
        ].mean(dtype=np.float64)
        for index in spread(len(video), PERCEPTUAL_FRAMES)
    ]
    return float(np.mean(distances))


def check_shapes(video: NDArray[np.float32], reference: NDArray[np.float32]) -> None:
    """Raise ValueError unless two videos are (F,H,W,3) of the same shape."""
    if video.shape != reference.shape or video.ndim != 4:
        raise ValueError(
            f"videos must be (F,H,W,3) of the same shape, got {video.shape} and {reference.shape}"
        )
