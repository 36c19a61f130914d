"""Lowering: from patterns to block tables."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from ajour.capture import random_levels
from ajour.lists import tile_shares, with_exact
from ajour.patterns import Captured, GeometricPattern, Skip
from ajour.table import BlockTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.patterns import Pattern

logger = logging.getLogger("ajour")


def level_map(pattern: Pattern, grid: TokenGrid) -> NDArray[np.int8]:
    """The level of every (query block, key block) of a pattern: int8 (N, N), -1 where dropped.

    Raises:
        TypeError: if the pattern does not follow from the grid alone.
    """
    if not isinstance(pattern, GeometricPattern):
        raise TypeError(f"the pattern must be geometric, got {pattern!r}")
    video = _video_levels(pattern, replace(grid, before=0, after=0))
    return with_exact(torch.from_numpy(video)[None], grid)[0].numpy()


@lru_cache(maxsize=64)
def _video_levels(pattern: GeometricPattern, grid: TokenGrid) -> NDArray[np.int8]:
    """Levels of a grid without exact tokens: prompts of all lengths share them."""
    return pattern.video_levels(grid)


@lru_cache(maxsize=1024)
def density(pattern: Pattern, grid: TokenGrid) -> float:
    """Share of dense attention's tiles that a pattern computes.

    An upper bound for a captured pattern whose `share_of` is "attention".
    """
    if not isinstance(pattern, Captured):
        levels = torch.from_numpy(level_map(pattern, grid))[None]
    elif pattern.share_of == "attention":
        return pattern.density
    else:
        levels = with_exact(random_levels(pattern, grid), grid)
    return float(tile_shares(levels)[0])


def pools(pattern: Pattern, grid: TokenGrid) -> bool:
    """Whether a pattern has pooled keys on a grid."""
    if isinstance(pattern, Captured):
        return max(pattern.levels) > 0
    return bool((level_map(pattern, grid) > 0).any())


def lower(patterns: Sequence[Pattern], grid: TokenGrid) -> BlockTable:
    """The block table of one layer, one pattern per head. Equal patterns share a row.

    A captured pattern gets a row without video keys, in its order; `BlockTable.with_rows` replaces
    it when the pattern has been measured. A captured pattern whose share is too small to keep any
    key on the grid is logged as a warning, once.
    """
    rows = list(dict.fromkeys(patterns))
    for pattern in rows:
        if isinstance(pattern, Captured):
            _check_keeps_keys(pattern, replace(grid, before=0, after=0))
    return BlockTable.from_levels(
        grid,
        [level_map(p if isinstance(p, GeometricPattern) else Skip(), grid) for p in rows],
        [pattern.order for pattern in rows],
        [rows.index(pattern) for pattern in patterns],
    )


@lru_cache(maxsize=1024)
def _check_keeps_keys(pattern: Captured, grid: TokenGrid) -> None:
    """Warn once if a captured pattern keeps no video key on a grid."""
    if pattern.cumulative_shares[-1] * grid.video_blocks >= 1:
        return
    if not (random_levels(pattern, grid) >= 0).any():
        logger.warning(
            "a captured pattern with cumulative_shares %s keeps no key on grid %s, which has %d "
            "blocks: its heads give 0 for video tokens; use larger shares on so small a grid",
            list(pattern.cumulative_shares), grid, grid.video_blocks,
        )  # fmt: skip
