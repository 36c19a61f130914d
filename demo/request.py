"""What a user may request: bounded and checked before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

MOST_WORDS = 1000
"""Characters of a prompt."""
MOST_PIXELS = 129 * 720 * 1280
"""Frames x height x width of a video."""
BOUNDS = {
    "seed": (0, 2**31 - 1), "steps": (2, 100), "frames": (1, 257), "height": (32, 2048),
    "width": (32, 2048), "guidance": (0, 30),
}  # fmt: skip
"""Lowest and highest value of each number of a request."""


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
        values = {"seed": self.seed, "steps": self.steps, "guidance": self.guidance}
        for name, value in (values | self.size._asdict()).items():
            low, high = BOUNDS[name]
            if not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {value}")
        pixels = self.size.frames * self.size.height * self.size.width
        if pixels > MOST_PIXELS:
            raise ValueError(
                f"frames x height x width must be at most {MOST_PIXELS:,}, got {pixels:,}"
            )

    @classmethod
    def of(cls, prompt: Any, seed: Any, steps: Any, *size_and_guidance: Any) -> Request:
        """A request from the fields of a form, which may be empty or no numbers.

        Args:
            prompt: the prompt.
            seed: of the initial noise.
            steps: denoising steps.
            size_and_guidance: frames, height, width and guidance.

        Raises:
            ValueError: if a value is no number, or out of its bounds.
        """
        numbers: list[Any] = []
        for name, value in zip(BOUNDS, (seed, steps, *size_and_guidance), strict=True):
            kind, article = (float, "a") if name == "guidance" else (int, "a whole")
            try:
                numbers.append(kind(value))
            except (TypeError, ValueError, OverflowError):
                raise ValueError(f"{name} must be {article} number, got {value!r}") from None
        seed, steps, *size, guidance = numbers
        return cls(prompt, seed, steps, Size(*size), guidance)
