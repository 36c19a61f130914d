"""The words that the bundled model knows: it was trained on drawn scenes and nothing else."""

from __future__ import annotations

import re

VOCABULARY = {
    "colours": ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white"),
    "shapes": ("circle", "square", "triangle", "star", "ring", "cross"),
    "textures": ("striped", "checkered", "dotted"),
    "sizes": ("small", "large"),
    "places": (
        "in the centre",
        "on the left",
        "on the right",
        "at the top",
        "at the bottom",
        "in the top left",
        "in the top right",
        "in the bottom left",
        "in the bottom right",
    ),
    "motions": (
        "stays still",
        "moves left",
        "moves right",
        "moves up",
        "moves down",
        "moves up and to the left",
        "moves up and to the right",
        "moves down and to the left",
        "moves down and to the right",
        "moves in a circle",
        "moves in an arc to the left",
        "moves in an arc to the right",
        "bounces up and down",
    ),
    "backgrounds": ("black", "gray", "navy", "brown"),
}
"""Kinds of words, and the words and phrases of each."""


def known_words() -> str:
    """The words that make most prompts, in a line."""
    kinds = ("shapes", "colours", "textures")
    return "; ".join(f"{kind}: {', '.join(VOCABULARY[kind])}" for kind in kinds)


def unknown_subject(prompt: str) -> str | None:
    """What to tell the author of a prompt that names nothing the bundled model can draw.

    Args:
        prompt: of the bundled model.

    Returns:
        A sentence, or None if the prompt names a shape.
    """
    shapes = VOCABULARY["shapes"]
    if re.search(rf"\b({'|'.join(shapes)})(e?s)?\b", prompt.lower()):
        return None
    return (
        "the bundled model draws shapes only, and this prompt names none of those that it knows; "
        + known_words()
    )
