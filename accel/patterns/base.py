"""The base classes of patterns: which video tokens a head attends to, in grid coordinates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ajour.grid import BLOCK, TokenGrid
from ajour.lists import DROPPED
from ajour.orders import order
from ajour.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

WORD_BITS = 64

MOST = 10**6
"""Largest number of tokens or frames in a pattern; no grid has more along an axis."""


@dataclass(frozen=True)
class Pattern(ABC):
    """A head's choice of keys. Subclasses are frozen dataclasses of JSON values.

    A pattern gives the pooling level at which video tokens attend to each other, if they do, and
    the order whose blocks suit it. It does not concern exact tokens: as queries they attend to
    everything, and as keys they are part of every row that has any key.

    Attributes:
        kind: name in plan files.
        sees: what a query attends to, in a few words.
        order: name of the order that forms the blocks.
    """

    kind: ClassVar[str]
    sees: ClassVar[str]

    @property
    @abstractmethod
    def order(self) -> str:
        """Name of the order that forms the blocks."""

    def check_integer(self, name: str, minimum: int, maximum: int = MOST) -> None:
        """Raise ValueError unless a field is an integer within bounds, which belong to them."""
        value = getattr(self, name)
        number = isinstance(value, int) and not isinstance(value, bool)
        if not number or not minimum <= value <= maximum:
            raise ValueError(
                f"{self.kind}: {name} must be an integer from {minimum} to {maximum}, "
                f"got {quoted(value)}"
            )

    def check_flag(self, name: str) -> None:
        """Raise ValueError unless a field is true or false."""
        value = getattr(self, name)
        if not isinstance(value, bool):
            raise ValueError(f"{self.kind}: {name} must be true or false, got {quoted(value)}")

    def check_choice(self, name: str, choices: Sequence[str]) -> None:
        """Raise ValueError unless a field is one of the choices."""
        value = getattr(self, name)
        if value not in choices:
            raise ValueError(
                f"{self.kind}: {name} must be one of {', '.join(choices)}, got {quoted(value)}"
            )

    def to_dict(self) -> dict[str, object]:
        """The pattern as JSON: its kind and its fields."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        lists = {name: list(x) for name, x in values.items() if isinstance(x, tuple)}
        return {"kind": self.kind} | values | lists


class GeometricPattern(Pattern):
    """A pattern that follows from coordinates on the grid alone.

    The level of a (query block, key block) pair is the finest level of any pair of their tokens;
    the key block is dropped if no pair of tokens has a level.
    """

    @abstractmethod
    def level(self, query: NDArray[np.int64], key: NDArray[np.int64], grid: TokenGrid) -> int:
        """How a query token sees a key token: the definition, for one pair.

        Args:
            query: (t, h, w) of the query token.
            key: (t, h, w) of the key token.
            grid: the token grid.

        Returns:
            0 for exact, 1 to 3 for mean-pooled 2x to 8x with neighbouring keys, -1 for dropped.
        """

    @abstractmethod
    def video_levels(self, grid: TokenGrid) -> NDArray[np.int8]:
        """Levels of the blocks of video keys: (Nv, Nv), rows are query blocks."""


class ExactPattern(GeometricPattern):
    """A pattern without pooling: it only chooses keys."""

    @abstractmethod
    def allows(self, query: NDArray[np.int64], key: NDArray[np.int64], grid: TokenGrid) -> bool:
        """Whether a query token attends to a key token; arguments: see `level`."""

    @abstractmethod
    def video_blocks(self, grid: TokenGrid) -> NDArray[np.bool_]:
        """Selected blocks of video keys: bool (Nv, Nv), rows are query blocks."""

    def level(self, query: NDArray[np.int64], key: NDArray[np.int64], grid: TokenGrid) -> int:
        """0 where allowed."""
        return 0 if self.allows(query, key, grid) else DROPPED

    def video_levels(self, grid: TokenGrid) -> NDArray[np.int8]:
        """0 where selected."""
        return np.where(self.video_blocks(grid), 0, DROPPED).astype(np.int8)


def in_blocks(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether any token of each block is set: (..., V) in block order to (..., Nv)."""
    pad = -flags.shape[-1] % BLOCK
    if pad:
        flags = np.concatenate([flags, np.zeros((*flags.shape[:-1], pad), dtype=bool)], axis=-1)
    return np.asarray(flags.reshape(*flags.shape[:-1], -1, BLOCK).any(axis=-1))


def frame_keys(grid: TokenGrid, name: str, frames: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Blocks of an order that hold a token of one of the flagged frames: bool (Nv,)."""
    return in_blocks(frames[order(name, grid.shape) // (grid.height * grid.width)])


def box_neighbours(grid: TokenGrid, name: str, radius: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Blocks that touch a box around any token of a query block: bool (Nv, Nv).

    The box |dt| <= radius[0], |dh| <= radius[1], |dw| <= radius[2] is a product of intervals, so
    the tokens near a query block are its tokens dilated along one axis after another. 64 query
    blocks are dilated together, as the bits of a word.

    Args:
        grid: the token grid.
        name: the order that forms the blocks.
        radius: half-widths in tokens along (t, h, w).
    """
    perm = order(name, grid.shape)
    block = np.arange(len(perm)) // BLOCK
    starts = np.arange(grid.video_blocks) * BLOCK
    selected = np.zeros((grid.video_blocks, grid.video_blocks), dtype=bool)
    for first in range(0, grid.video_blocks, WORD_BITS):
        tokens = slice(first * BLOCK, (first + WORD_BITS) * BLOCK)
        reach = np.zeros(grid.shape, dtype=np.uint64)
        reach.ravel()[perm[tokens]] = np.uint64(1) << (block[tokens] - first).astype(np.uint64)
        for axis in range(3):
            reach = _dilate(reach, axis, radius[axis])
        touched = np.bitwise_or.reduceat(reach.ravel()[perm], starts)
        rows = selected[first : first + WORD_BITS]
        bit = np.arange(len(rows), dtype=np.uint64)
        rows[:] = touched >> bit[:, None] & np.uint64(1)
    return selected


def _dilate(words: NDArray[np.uint64], axis: int, radius: int) -> NDArray[np.uint64]:
    """Combine every cell with all cells within `radius` along an axis, in log2(radius) passes."""
    words = np.moveaxis(words, axis, 0)
    radius = min(radius, len(words) - 1)
    reached = 0
    while reached < radius:
        step = min(reached + 1, radius - reached)
        grown = words.copy()
        grown[step:] |= words[:-step]
        grown[:-step] |= words[step:]
        words = grown
        reached += step
    return np.moveaxis(words, 0, axis)
