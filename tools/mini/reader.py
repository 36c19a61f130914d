"""Reads colour, place and direction of moving things out of a video, with OpenCV alone.

The reader shares nothing with the renderer and the training: it knows a prompt's words and what a
person would call red, left or up. A prompt is scored by its claims: each thing of the caption
claims a colour, a start place and a motion, and a claim about a thing that is not seen is false.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

HUES = {  # degrees: from, below; red goes round through 0
    "red": (335, 14), "orange": (14, 42), "yellow": (42, 80), "green": (80, 155),
    "cyan": (155, 204), "blue": (204, 256), "purple": (256, 335),
}  # fmt: skip
COLOURS = (*HUES, "white")
MIN_SATURATION, MIN_VALUE = 0.45, 0.36
WHITE_SATURATION, WHITE_VALUE = 0.22, 0.42
MIN_AREA = 0.006
"""Share of the picture that a thing covers at least."""

MOVED = 0.15
"""Travel, as a share of the picture's axis, that counts as motion along that axis."""

EDGE = 1 / 6
"""A place is "left" where its centre is more than this share left of the middle, and so on."""

DIRECTIONS = {
    "stays still": (0, 0),
    "moves left": (-1, 0),
    "moves right": (1, 0),
    "moves up": (0, -1),
    "moves down": (0, 1),
    "moves up and to the left": (-1, -1),
    "moves up and to the right": (1, -1),
    "moves down and to the left": (-1, 1),
    "moves down and to the right": (1, 1),
}
_CLAUSE = re.compile(
    rf"\b(?P<colour>{'|'.join(COLOURS)}) \w+ (?:in|on|at) the (?P<place>[a-z ]+?) "
    rf"(?P<motion>{'|'.join(sorted(DIRECTIONS, key=len, reverse=True))})(?= on a |, and |$)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Sighting:
    """What is seen of one colour, or expected of it.

    Attributes:
        colour: Its name.
        place: Where it starts: signs along x and y, 0 for the middle third.
        motion: Where it goes: signs along x and y, 0 for no travel.
    """

    colour: str
    place: tuple[int, int]
    motion: tuple[int, int]


def expected(prompt: str) -> list[Sighting]:
    """Reads the things of a canonical caption with still or straight motion.

    Raises:
        ValueError: If no clause can be read.
    """
    sightings = []
    for clause in prompt.split(" on a ")[0].split(", and "):
        match = _CLAUSE.search(clause)
        if match is None:
            raise ValueError(f"expected a canonical caption with straight motions, got {clause!r}")
        words = match["place"].split()
        across = ("right" in words) - ("left" in words)
        down = ("bottom" in words) - ("top" in words)
        sightings.append(
            Sighting(match["colour"].lower(), (across, down), DIRECTIONS[match["motion"].lower()])
        )
    return sightings


def colour_mask(frame: NDArray[np.uint8], colour: str) -> NDArray[np.uint8]:
    """Marks the pixels (H,W) of an RGB frame (H,W,3) that have a colour, specks removed."""
    hue, value_range, saturation = _planes(frame)
    if colour == "white":
        mask = (saturation < WHITE_SATURATION) & (value_range > WHITE_VALUE)
    else:
        low, high = HUES[colour]
        inside = (hue >= low) & (hue < high) if low < high else (hue >= low) | (hue < high)
        mask = inside & (saturation > MIN_SATURATION) & (value_range > MIN_VALUE)
    kernel = np.ones((5, 5), np.uint8)
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    return np.asarray(opened, dtype=np.uint8)


def _planes(
    frame: NDArray[np.uint8],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Hue in degrees, value and saturation in [0,1]."""
    hls = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    return hls[..., 0], hls[..., 2], hls[..., 1]


def track(video: NDArray[np.uint8], colour: str) -> NDArray[np.float64]:
    """Centre of a colour in every frame.

    Args:
        video: (F,H,W,3), RGB.
        colour: Its name.

    Returns:
        (F,2): x and y as shares of width and height; NaN where the colour covers too little.
    """
    _, height, width, _ = video.shape
    centres = np.full((len(video), 2), np.nan)
    for index, frame in enumerate(video):
        moments = cv2.moments(colour_mask(frame, colour), binaryImage=True)
        if moments["m00"] >= MIN_AREA * height * width:
            centres[index] = (
                (moments["m10"] / moments["m00"] + 0.5) / width,
                (moments["m01"] / moments["m00"] + 0.5) / height,
            )
    return centres


def read(video: NDArray[np.uint8], colour: str) -> Sighting | None:
    """What a colour does in a video (F,H,W,3); None if it is missing in most frames."""
    centres = track(video, colour)
    seen = np.flatnonzero(~np.isnan(centres[:, 0]))
    if len(seen) < max(1, 0.6 * len(video)):
        return None
    edge = max(1, len(video) // 10)
    start = np.median(centres[seen[:edge]], axis=0)
    travel = np.median(centres[seen[-edge:]], axis=0) - start
    place = [int(np.sign(p)) if abs(p) > EDGE else 0 for p in start - 0.5]
    motion = [int(np.sign(t)) if abs(t) > MOVED else 0 for t in travel]
    return Sighting(colour, (place[0], place[1]), (motion[0], motion[1]))


def score(video: NDArray[np.uint8], prompt: str) -> dict[str, list[bool]]:
    """Checks a video against its prompt.

    Args:
        video: (F,H,W,3), RGB, uint8.
        prompt: Canonical caption with still or straight motions.

    Returns:
        For `colour`, `place` and `motion` one verdict per thing of the caption.
    """
    verdicts: dict[str, list[bool]] = {"colour": [], "place": [], "motion": []}
    for claim in expected(prompt):
        seen = read(video, claim.colour)
        verdicts["colour"].append(seen is not None)
        verdicts["place"].append(seen is not None and seen.place == claim.place)
        verdicts["motion"].append(seen is not None and seen.motion == claim.motion)
    return verdicts
