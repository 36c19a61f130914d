"""What a user may request: bounded and checked before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

MOST_STEPS = 100
MOST_WORDS = 1000
"""Characters of a prompt."""
MOST_SEED = 2**31 - 1
MOST_FRAMES = 257
MOST_SIDE = 2048
MOST_PIXELS = 129 * 720 * 1280
"""Frames x height x width of a video."""


class Size(NamedTuple):
    """The size of a video: frames, and height and width in pixels."""

    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        frames = f"{self.frames} frames, " if self.frames > 1 else ""
        return f"{frames}{self.width} x {self.height}"


@dataclass(frozen=True)
class Request:
    """One run.

    Args:
        prompt: what to show.
        seed: of the initial noise.
        steps: denoising steps.
        size: of the video.
        guidance: classifier-free guidance scale.

    Raises:
        ValueError: if a value is out of its bounds.
    """

    prompt: str
    seed: int
    steps: int
    size: Size
    guidance: float

    def __post_init__(self) -> None:
        prompt = " ".join(str(self.prompt or "").split())
        if not prompt or len(prompt) > MOST_WORDS:
            raise ValueError(f"a prompt has 1 to {MOST_WORDS} characters, got {len(prompt)}")
        object.__setattr__(self, "prompt", prompt)
        bounds = {
            "seed": (self.seed, 0, MOST_SEED),
            "steps": (self.steps, 2, MOST_STEPS),
            "frames": (self.size.frames, 1, MOST_FRAMES),
            "height": (self.size.height, 32, MOST_SIDE),
            "width": (self.size.width, 32, MOST_SIDE),
        }
        for name, (value, low, high) in bounds.items():
            if not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {value}")
        if not 0 <= self.guidance <= 30:
            raise ValueError(f"guidance must be from 0 to 30, got {self.guidance:g}")
        pixels = self.size.frames * self.size.height * self.size.width
        if pixels > MOST_PIXELS:
            raise ValueError(
                f"frames x height x width must be at most {MOST_PIXELS:,}, got {pixels:,}"
            )

    @classmethod
    def of(
        cls, prompt: Any, seed: Any, steps: Any, frames: Any, height: Any, width: Any, guidance: Any
    ) -> Request:
        """A request from the fields of a form, which may be empty or no numbers.

        Raises:
            ValueError: if a value is no number, or out of its bounds.
        """
        numbers = {}
        given = {"seed": seed, "steps": steps, "frames": frames, "height": height, "width": width}
        for name, value in given.items():
            try:
                numbers[name] = int(value)
            except (TypeError, ValueError, OverflowError):
                raise ValueError(f"{name} must be a whole number, got {value!r}") from None
        try:
            scale = float(guidance)
        except (TypeError, ValueError):
            raise ValueError(f"guidance must be a number, got {guidance!r}") from None
        size = Size(numbers["frames"], numbers["height"], numbers["width"])
        return cls(prompt, numbers["seed"], numbers["steps"], size, scale)
