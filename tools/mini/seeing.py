"""What OpenCV sees of a colour in a video: where it is, how many there are, which texture it has.

This shares nothing with the renderer and the training: it knows what a person would call red,
and that stripes are waves in one direction, and checks and dots waves in two.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Points = NDArray[np.float64]
    Video = NDArray[np.uint8]

HUES = {  # degrees: from, below; red goes round through 0
    "red": (335, 14), "orange": (14, 42), "yellow": (42, 80), "green": (80, 155),
    "cyan": (155, 204), "blue": (204, 256), "purple": (256, 335),
}  # fmt: skip
COLOURS = (*HUES, "white")
MIN_SATURATION, MIN_VALUE = 0.45, 0.3
WHITE_SATURATION, WHITE_VALUE = 0.22, 0.42
MIN_AREA = 0.006
"""Share of the picture that a colour covers at least."""

MIN_PART = 0.25
"""Smallest separate region that is counted, as a share of the largest."""

MAX_HOLE = 0.1
"""Largest hole that belongs to a region, as a share of it: a spot darker than its colour."""

TEXTURE_FRAMES = 5
MIN_PIXELS, MAX_PIXELS = 40, 800
"""Pixels of a region that its texture is read from."""

MIN_CONTRAST = 0.1
"""Spread of the brightness, as a share of its mean, from which a region is not plain."""

WAVES = np.arange(0.85, 1.65, 0.1)
"""Waves to half the width of a region that a texture may have."""

MIN_SHARE = 0.25
"""Share of the spread that waves explain at least in a texture: a soft outline is none."""

CROSSED = 0.15
"""Share of the spread that a second direction explains in checks and dots, and not in stripes."""


@dataclass(frozen=True)
class Sighting:
    """What is seen of one colour; positions are x and y as shares of width and height.

    Attributes:
        start: Its centre in the first frames.
        middle: Its centre halfway.
        end: Its centre in the last frames.
        count: Number of separate regions in the first frames.
        texture: "plain", "striped", "checkered" or "dotted"; empty if the region is too small.
    """

    start: tuple[float, float]
    middle: tuple[float, float]
    end: tuple[float, float]
    count: int
    texture: str


def colour_mask(frame: Video, colour: str) -> NDArray[np.uint8]:
    """Marks the pixels (H,W) of an RGB frame (H,W,3) that have a colour, specks removed."""
    hsv = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hue, saturation, value = hsv[..., 0], hsv[..., 1], hsv[..., 2]
    if colour == "white":
        mask = (saturation < WHITE_SATURATION) & (value > WHITE_VALUE)
    else:
        low, high = HUES[colour]
        inside = (hue >= low) & (hue < high) if low < high else (hue >= low) | (hue < high)
        mask = inside & (saturation > MIN_SATURATION) & (value > MIN_VALUE)
    width = 2 * max(1, min(mask.shape) // 128) + 1
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((width, width)))
    return np.asarray(opened, dtype=np.uint8)


def see(video: Video, colour: str) -> Sighting | None:
    """What a colour does in an RGB video (F,H,W,3); None if it is missing in most frames."""
    masks = [colour_mask(frame, colour) for frame in video]
    seen = [i for i, mask in enumerate(masks) if mask.sum() >= MIN_AREA * mask.size]
    if len(seen) < max(1, 0.6 * len(video)):
        return None
    edge = max(1, len(video) // 10)
    halfway = sorted(seen, key=lambda index: abs(2 * index - len(video) + 1))
    start, middle, end = (
        np.median([_centre(masks[index]) for index in chosen], axis=0).tolist()
        for chosen in (seen[:edge], halfway[:edge], seen[-edge:])
    )
    some = sorted({seen[i] for i in np.linspace(0, len(seen) - 1, TEXTURE_FRAMES).astype(int)})
    textures = [texture_of(video[index], masks[index]) for index in some]
    return Sighting(
        start=tuple(start),
        middle=tuple(middle),
        end=tuple(end),
        count=int(np.median([len(regions(masks[index])) for index in seen[:edge]])),
        texture=Counter(filter(None, textures)).most_common(1)[0][0] if any(textures) else "",
    )


def _centre(mask: NDArray[np.uint8]) -> tuple[float, float]:
    """Mean x and y of the marked pixels, as shares of width and height."""
    height, width = mask.shape
    moments = cv2.moments(mask, binaryImage=True)
    return (
        (moments["m10"] / moments["m00"] + 0.5) / width,
        (moments["m01"] / moments["m00"] + 0.5) / height,
    )


def regions(mask: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Separate regions of a mask, the largest first, without those much smaller than it."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    order = np.argsort(-areas, kind="stable")
    return [
        (labels == label + 1).astype(np.uint8)
        for label in order
        if areas[label] >= MIN_PART * areas.max()
    ]


def _filled(region: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A region with its small holes."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(1 - region, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < MAX_HOLE * region.sum()
    small[0] = True  # the region itself
    return small[labels].astype(np.uint8)


def texture_of(frame: Video, mask: NDArray[np.uint8]) -> str:
    """The texture in the largest region of a mask (H,W); empty if the region is too small."""
    region = _filled(regions(mask)[0])
    x, y, width, height = cv2.boundingRect(region)
    margin = 2 * max(1, round(min(mask.shape) / 100)) + 1
    inside = cv2.erode(region, np.ones((margin, margin)), borderValue=0)
    rows, columns = np.nonzero(inside)
    if len(rows) < MIN_PIXELS:
        return ""
    light = frame[rows, columns].max(axis=1).astype(np.float64)
    if light.std() < MIN_CONTRAST * light.mean():
        return "plain"
    half = np.sqrt(width * height) / 2
    step = -(-len(rows) // MAX_PIXELS)
    points = np.stack((columns - x - width / 2, rows - y - height / 2), axis=1) / half
    one, diagonal, upright = explained(points[::step], light[::step])
    if max(one, diagonal, upright) < MIN_SHARE:
        return "plain"
    if max(diagonal, upright) < one + CROSSED:
        return "striped"
    return "checkered" if diagonal > upright else "dotted"


def explained(points: Points, light: Points) -> tuple[float, float, float]:
    """How well waves explain the brightness at points, as shares of its variance.

    Args:
        points: (N,2), x and y in half widths of the region.
        light: (N,), brightness.

    Returns:
        The shares of waves in the best direction alone, in both diagonals, and in x and y.
    """
    light = (light - light.mean()) / light.std()
    along = points @ (np.array([[1, 0], [0, 1], [0.5**0.5, 0.5**0.5], [-(0.5**0.5), 0.5**0.5]]).T)
    best = np.zeros((len(WAVES), 3))
    for index, waves in enumerate(WAVES):
        turn = 2 * np.pi * waves * along
        basis = np.concatenate((np.cos(turn), np.sin(turn), np.ones((len(turn), 1))), axis=1)
        square, product = basis.T @ basis, basis.T @ light
        shares = [
            _share(square, product, columns, len(light))
            for columns in ((0,), (1,), (2,), (3,), (2, 3), (0, 1))
        ]
        best[index] = max(shares[:4]), *shares[4:]
    one, diagonal, upright = best.max(axis=0)
    return float(one), float(diagonal), float(upright)


def _share(square: Points, product: Points, directions: tuple[int, ...], count: int) -> float:
    """Share of the variance that the waves of some directions explain by least squares."""
    chosen = [*directions, *(d + 4 for d in directions), 8]
    inner = square[np.ix_(chosen, chosen)] + 1e-6 * count * np.eye(len(chosen))
    return float(product[chosen] @ np.linalg.solve(inner, product[chosen])) / count
