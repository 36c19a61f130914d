"""A preview of the frames as they form: the clean video that the last step predicted.

The clean latents follow from the latents before and after the step and their noise levels. Colours
are a linear map of the latents, fitted to a finished video of the same pipeline. Before that, the
strongest component is shown in gray. Nothing is decoded, so a preview costs milliseconds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.files import read_json
from ajour.pipelines.drawing import spread
from ajour.pipelines.steps import noise_levels
from ajour.pipelines.video import to_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Latents = NDArray[np.float32]

FRAMES = 6
"""Latent frames of a strip."""

SIDE = 128
"""Longer side of a frame in a strip, pixels."""

MOST_BYTES = 2**20
"""Of a file of colours."""

MEMORY = (1, 4, 6, 8)
"""Video frames per latent frame in the autoencoders of supported models."""

PATCHES = (8, 16, 32, 64)
"""Pixels per latent row and column, also of packed latents."""


@dataclass(frozen=True)
class Colours:
    """A linear map of latents to RGB.

    Attributes:
        weight: (C + 1, 3); the last row is the bias.
    """

    weight: NDArray[np.float32]

    @classmethod
    def fit(cls, latents: Latents, video: NDArray[np.float32]) -> Colours:
        """Least squares between a run's final latents and its video.

        Args:
            latents: (f,h,w,C).
            video: (F,H,W,3) in [0,1].
        """
        picked = np.linspace(0, len(video) - 1, len(latents)).round().astype(int)
        small = np.stack([_resized(video[i], latents.shape[2], latents.shape[1]) for i in picked])
        flat = latents.reshape(-1, latents.shape[-1])
        flat = np.pad(flat, ((0, 0), (0, 1)), constant_values=1)
        ridge = 1e-3 * len(flat) * np.eye(flat.shape[1], dtype=np.float32)
        weight = np.linalg.solve(flat.T @ flat + ridge, flat.T @ small.reshape(-1, 3))
        return cls(weight.astype(np.float32))

    def __call__(self, latents: Latents) -> NDArray[np.float32]:
        """(f,h,w,C) to (f,h,w,3) in [0,1]."""
        return np.clip(latents @ self.weight[:-1] + self.weight[-1], 0, 1)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(np.round(self.weight, 5).tolist()) + "\n")

    @classmethod
    def load(cls, path: Path) -> Colours:
        """Read what `save` wrote."""
        return cls(np.array(read_json(path, MOST_BYTES, "colours"), np.float32))


@dataclass
class Preview:
    """Follows the latents of a run.

    Attributes:
        scheduler: the pipeline's scheduler; its noise levels are read after each step.
        size: (frames, height, width) of the video.
        colours: of these latents, if they are known.
        latents: after the last step, (f,h,w,C).
    """

    scheduler: Any
    size: tuple[int, int, int]
    colours: Colours | None = None
    latents: Latents | None = None

    def step(self, index: int, latents: Any) -> NDArray[np.uint8] | None:
        """A strip of frames after a step, (h,w,3); None if the layout of the latents is unknown."""
        after = on_grid(latents, self.size)
        if after is None:
            return None
        before, self.latents = self.latents if index > 0 else None, after
        clean = after
        if before is not None:
            clean = clean_latents(before, after, scales(self.scheduler), index)
        if self.colours is not None and len(self.colours.weight) == clean.shape[-1] + 1:
            return strip(self.colours(clean))
        return strip(gray(clean))


def on_grid(latents: Any, size: tuple[int, int, int]) -> Latents | None:
    """Latents of the first sample as (f,h,w,C); None if the layout is unknown.

    Args:
        latents: (B,C,f,h,w), (B,f,C,h,w), (B,C,h,w), or packed (B, f*h*w, C).
        size: (frames, height, width) of their video.
    """
    values = latents[0].detach().float().cpu().numpy()
    frames, height, width = size
    counts = {1 + (frames - 1) // memory for memory in MEMORY} | {-(-frames // 4)}
    if values.ndim == 4:  # channels or frames first
        return np.moveaxis(values, 0 if values.shape[1] in counts else 1, -1)
    if values.ndim == 3:  # one image
        return np.moveaxis(values, 0, -1)[None]
    for patch in PATCHES:
        rows, columns = height // patch, width // patch
        whole = values.ndim == 2 and rows * columns > 0 and len(values) % (rows * columns) == 0
        if whole and len(values) // (rows * columns) in counts:
            return values.reshape(-1, rows, columns, values.shape[1])
    return None


def scales(scheduler: Any) -> list[tuple[float, float]]:
    """(s, n) before each step and after the last, where x = s * data + n * noise."""
    noise = np.array([*noise_levels(scheduler), 0.0])
    if not hasattr(scheduler, "sigmas"):  # s * s + n * n = 1
        total = 1 / np.hypot(1 - noise, noise)
    elif float(max(scheduler.sigmas)) > 1 + 1e-6:  # s = 1
        total = 1 / (1 - noise)
    else:  # s + n = 1
        total = np.ones_like(noise)
    return list(zip((1 - noise) * total, noise * total, strict=True))


def clean_latents(
    before: Latents, after: Latents, levels: Sequence[tuple[float, float]], index: int
) -> Latents:
    """The clean latents that a step predicted.

    Before and after are two mixtures of the same data and noise; this solves for the data.

    Args:
        before: latents before the step.
        after: latents after it.
        levels: from `scales`.
        index: of the step.
    """
    if index + 1 >= len(levels):
        return after
    (s0, n0), (s1, n1) = levels[index], levels[index + 1]
    base = n0 * s1 - n1 * s0
    if abs(base) < 1e-6:
        return after
    return np.asarray((n0 * after - n1 * before) / base, dtype=np.float32)


def gray(latents: Latents) -> NDArray[np.float32]:
    """The strongest component of latents as gray: (f,h,w,3) in [0,1]."""
    latents = latents - latents.mean(axis=(1, 2), keepdims=True)  # frames differ by an offset
    flat = latents.reshape(-1, latents.shape[-1])
    _, directions = np.linalg.eigh(flat.T @ flat)
    values = latents @ directions[:, -1]
    low, high = np.percentile(values, (1, 99))
    scaled = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    return np.repeat(scaled[..., None], 3, axis=-1).astype(np.float32)


def strip(frames: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A few frames side by side, enlarged: (h,w,3)."""
    factor = SIDE / max(frames.shape[1:3])
    size = (max(1, round(frames.shape[2] * factor)), max(1, round(frames.shape[1] * factor)))
    row = np.concatenate([_resized(frames[i], *size) for i in spread(len(frames), FRAMES)], axis=1)
    return to_bytes(row)


def _resized(frame: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    import cv2

    method = cv2.INTER_AREA if width < frame.shape[1] else cv2.INTER_CUBIC
    return np.asarray(
        cv2.resize(np.ascontiguousarray(frame), (width, height), interpolation=method)
    )
