"""What a pattern is: which video tokens a head's queries attend to, in grid coordinates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ajour.grid import BLOCK, TokenGrid
from ajour.lists import DROPPED
from ajour.orders import order

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Pattern(ABC):
    """A head's choice of keys. Subclasses are frozen dataclasses of JSON values.

    A pattern says at which pooling level video tokens see each other, if at all, and names the
    order whose blocks it is cheap in. Text is not its business: text blocks stay exact, as keys of
    every row that has any key and as queries. `family` is the name in plan files, `sees` what a
    query attends to, in a few words.
    """

    family: ClassVar[str]
    sees: ClassVar[str]

    @property
    @abstractmethod
    def order(self) -> str:
        """Name of the order that this pattern prefers."""

    def check_integer(self, name: str, minimum: int) -> None:
        """Raise ValueError unless a field is an integer of at least `minimum`."""
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ValueError(
                f"{self.family}: {name} must be an integer of at least {minimum}, got {value!r}"
            )

    def check_flag(self, name: str) -> None:
        """Raise ValueError unless a field is true or false."""
        value = getattr(self, name)
        if not isinstance(value, bool):
            raise ValueError(f"{self.family}: {name} must be true or false, got {value!r}")

    def to_dict(self) -> dict[str, object]:
        """The pattern as JSON: its family and its fields."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        lists = {name: list(x) for name, x in values.items() if isinstance(x, tuple)}
        return {"family": self.family} | values | lists


class GeometricPattern(Pattern):
    """A pattern that follows from coordinates on the grid alone.

    It is reduced to blocks exactly: a key block has the finest level of any pair of its tokens
    with the query block's, and is dropped if no pair has one.
    """

    @abstractmethod
    def level(self, query: NDArray[np.int64], key: NDArray[np.int64], grid: TokenGrid) -> int:
        """How a query token sees a key token: the definition, for one pair.

        Args:
            query: (t, h, w) of the query token.
            key: (t, h, w) of the key token.
            grid: the token grid.

        Returns:
            0 for exactly, 1 to 3 for mean-pooled 2x to 8x with its neighbours, -1 for not at all.
        """

    @abstractmethod
    def video_levels(self, grid: TokenGrid) -> NDArray[np.int8]:
        """Levels of the blocks of video keys: (Nv, Nv), rows are query blocks."""


class ExactPattern(GeometricPattern):
    """A pattern whose keys are all exact: it says only which."""

    @abstractmethod
    def allows(self, query: NDArray[np.int64], key: NDArray[np.int64], grid: TokenGrid) -> bool:
        """Whether a query token attends to a key token; arguments as of `level`."""

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


def box_neighbours(
    grid: TokenGrid, name: str, radius: tuple[int, int, int], chunk: int = 64
) -> NDArray[np.bool_]:
    """Blocks that touch a box around any token of a query block: bool (Nv, Nv).

    The box |dt| <= radius[0], |dh| <= radius[1], |dw| <= radius[2] is a product, so a query
    block's reach is its indicator on the grid dilated along one axis after another.

    Args:
        grid: the token grid.
        name: the order that forms the blocks.
        radius: half-widths in tokens along (t, h, w).
        chunk: query blocks handled at a time; bounds memory at chunk * V bytes.
    """
    perm = order(name, grid.shape)
    total = grid.video_blocks
    selected = np.zeros((total, total), dtype=bool)
    for start in range(0, total, chunk):
        stop = min(start + chunk, total)
        tokens = perm[start * BLOCK : stop * BLOCK]
        own = np.zeros((stop - start, grid.video_tokens), dtype=bool)
        own[np.arange(len(tokens)) // BLOCK, tokens] = True
        reach: NDArray[np.bool_] = own.reshape(stop - start, *grid.shape)
        for axis in range(3):
            reach = _dilate(reach, axis + 1, radius[axis])
        selected[start:stop] = in_blocks(reach.reshape(stop - start, -1)[:, perm])
    return selected


def _dilate(flags: NDArray[np.bool_], axis: int, radius: int) -> NDArray[np.bool_]:
    """Set every cell within `radius` of a set one along an axis, in log2(radius) passes."""
    flags = np.moveaxis(flags, axis, -1).copy()
    radius = min(radius, flags.shape[-1] - 1)
    reached = 0
    while reached < radius:
        step = min(reached + 1, radius - reached)
        grown = flags.copy()
        grown[..., step:] |= flags[..., :-step]
        grown[..., :-step] |= flags[..., step:]
        flags = grown
        reached += step
    return np.moveaxis(flags, -1, axis)
