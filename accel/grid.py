"""The grid of tokens that one attention layer sees."""

from __future__ import annotations

from dataclasses import dataclass

BLOCK = 128
"""Tokens in a block: the unit in which key blocks are selected."""


@dataclass(frozen=True)
class TokenGrid:
    """Video tokens on a (frames, height, width) grid, with text tokens before or after them.

    The model's own token order is text_before, then the video in raster order (t, h, w), then
    text_after. An image is a grid of one frame.

    Args:
        frames: latent frames after patching.
        height: latent rows after patching.
        width: latent columns after patching.
        text_before: text tokens that precede the video tokens.
        text_after: text tokens that follow them.

    Raises:
        ValueError: if an extent is below 1 or a text length below 0.
    """

    frames: int
    height: int
    width: int
    text_before: int = 0
    text_after: int = 0

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise ValueError(
                f"a token grid needs at least 1 token along each axis, got {self.shape}"
            )
        if min(self.text_before, self.text_after) < 0:
            raise ValueError(
                "text lengths cannot be negative, "
                f"got text_before={self.text_before}, text_after={self.text_after}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(frames, height, width)."""
        return (self.frames, self.height, self.width)

    @property
    def video_tokens(self) -> int:
        """Tokens on the grid, text not counted."""
        return self.frames * self.height * self.width

    @property
    def text_tokens(self) -> int:
        """Text tokens, before and after together."""
        return self.text_before + self.text_after

    @property
    def seq_len(self) -> int:
        """All tokens: what the attention layer sees."""
        return self.video_tokens + self.text_tokens

    @property
    def video_blocks(self) -> int:
        """Blocks that hold video tokens; only the last may be partial."""
        return -(-self.video_tokens // BLOCK)

    @property
    def text_blocks(self) -> int:
        """Blocks that hold text tokens; only the last may be partial."""
        return -(-self.text_tokens // BLOCK)

    @property
    def blocks(self) -> int:
        """All blocks: video blocks first, then text blocks."""
        return self.video_blocks + self.text_blocks

    def __str__(self) -> str:
        text = f" + {self.text_tokens} text" if self.text_tokens else ""
        return f"{self.frames}x{self.height}x{self.width}{text}"
