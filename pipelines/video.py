"""Video files: H.264 out, and two videos side by side under labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BAR = 28
"""Height of the label's bar, pixels."""


def write_mp4(path: str | Path, video: NDArray[np.float32], fps: int) -> None:
    """Write a video as H.264 in MP4, visually lossless.

    Args:
        path: the file.
        video: (F,H,W,3) in [0,1].
        fps: frames per second.
    """
    import imageio.v2 as imageio

    # yuv420p, which players want, needs even sizes: the last row or column is repeated.
    odd = [(0, 0), (0, video.shape[1] % 2), (0, video.shape[2] % 2), (0, 0)]
    frames = np.pad(to_bytes(video), odd, mode="edge")
    options = ["-crf", "12", "-movflags", "+faststart"]
    imageio.mimwrite(
        path, list(frames), fps=fps, codec="libx264", macro_block_size=1, output_params=options
    )


def side_by_side(
    videos: list[NDArray[np.float32]], labels: list[str], gap: int = 8
) -> NDArray[np.float32]:
    """Put videos of one shape next to each other, each under its label.

    Args:
        videos: (F,H,W,3) in [0,1] each.
        labels: a line of text each.
        gap: pixels between two videos.

    Returns:
        (F,H + 28,width,3) in [0,1].
    """
    import cv2

    frames, height, width, _ = videos[0].shape
    columns: list[NDArray[np.float32]] = []
    for video, label in zip(videos, labels, strict=True):
        bar = np.zeros((BAR, width, 3), dtype=np.uint8)
        size = 0.45
        while size > 0.2 and cv2.getTextSize(label, 0, size, 1)[0][0] > width - 8:
            size -= 0.02
        cv2.putText(bar, label, (4, 18), 0, size, (255, 255, 255), 1, cv2.LINE_AA)
        head = np.broadcast_to(bar.astype(np.float32) / 255, (frames, BAR, width, 3))
        columns += [np.concatenate([head, video], axis=1)]
        columns += [np.zeros((frames, BAR + height, gap, 3), dtype=np.float32)]
    return np.concatenate(columns[:-1], axis=2)


def to_bytes(video: NDArray[np.float32]) -> NDArray[np.uint8]:
    """[0,1] to 0..255."""
    return (np.clip(video, 0, 1) * 255).round().astype(np.uint8)
