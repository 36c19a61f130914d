"""The grid of tokens that one attention layer sees."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ajour.quoting import quoted

_EXTENT = r"([1-9]\d{0,5})"
_TEXT = re.compile(rf"{_EXTENT}x{_EXTENT}x{_EXTENT}(?: \+ \d+ exact)?")

BLOCK = 128
"""Tokens in a block: the unit in which key blocks are selected."""

MOST_TOKENS = 2**31 - 1
"""Most tokens of a grid: block tables number them in 32 bits."""


@dataclass(frozen=True)
class TokenGrid:
    """Video tokens on a (frames, height, width) grid, with exact tokens before and after them.

    Exact tokens are all others that the layer sees: text, reference images, frames to condition
    on, audio. Every query attends to them, and they attend to everything.

    The model's token order is the exact tokens before, then the video in raster order (t, h, w),
    then the exact tokens after. An image is a grid of one frame.

    Args:
        frames: latent frames after patching.
        height: latent rows after patching.
        width: latent columns after patching.
        before: exact tokens in front of the video tokens.
        after: exact tokens behind them.

    Raises:
        ValueError: if an extent is below 1, a number of exact tokens below 0, or all tokens are
            2**31 or more.
    """

    frames: int
    height: int
    width: int
    before: int = 0
    after: int = 0

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise ValueError(
                f"a token grid needs at least 1 token along each axis, got {self.shape}"
            )
        if min(self.before, self.after) < 0:
            raise ValueError(
                "numbers of exact tokens cannot be negative, "
                f"got before={self.before}, after={self.after}"
            )
        if self.seq_len > MOST_TOKENS:
            raise ValueError(f"a token grid has at most {MOST_TOKENS} tokens, got {self.seq_len}")

    @classmethod
    def parse(cls, text: str) -> TokenGrid:
        """A grid from text such as `13x16x16`, without exact tokens.

        The number of exact tokens that `str(grid)` appends is accepted and left out, because it
        does not say where they are.

        Raises:
            ValueError: if the text is not three extents of at least 1.
        """
        match = _TEXT.fullmatch(text.strip().lower())
        if match is None:
            raise ValueError(
                "a grid is FRAMESxHEIGHTxWIDTH in tokens, such as 13x16x16, each from 1 to 999999, "
                f"got {quoted(text)}"
            )
        return cls(*map(int, match.groups()))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(frames, height, width)."""
        return (self.frames, self.height, self.width)

    @property
    def video_tokens(self) -> int:
        """Tokens on the grid, without exact tokens."""
        return self.frames * self.height * self.width

    @property
    def exact_tokens(self) -> int:
        """Exact tokens, before and after together."""
        return self.before + self.after

    @property
    def seq_len(self) -> int:
        """All tokens: what the attention layer sees."""
        return self.video_tokens + self.exact_tokens

    @property
    def video_blocks(self) -> int:
        """Blocks that hold video tokens; only the last may be partial."""
        return -(-self.video_tokens // BLOCK)

    @property
    def exact_blocks(self) -> int:
        """Blocks that hold exact tokens; only the last may be partial."""
        return -(-self.exact_tokens // BLOCK)

    @property
    def blocks(self) -> int:
        """All blocks: video blocks first, then exact blocks."""
        return self.video_blocks + self.exact_blocks

    def __str__(self) -> str:
        exact = f" + {self.exact_tokens} exact" if self.exact_tokens else ""
        return f"{self.frames}x{self.height}x{self.width}{exact}"
