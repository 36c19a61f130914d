"""The block tables of one transformer, made once per grid and assignment."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import torch

from ajour.capture import expand
from ajour.lowering import lower

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ajour.capture import CapturedRows
    from ajour.grid import TokenGrid
    from ajour.patterns import Pattern
    from ajour.table import BlockTable

    Patterns = tuple[tuple[Pattern, ...], ...]
    Prepared = list[tuple[tuple[BlockTable, ...], tuple[CapturedRows, ...] | None]]

logger = logging.getLogger("ajour")

LOWERED_BYTES = 512 * 2**20
"""Tables of further grids are kept up to this size; the least recently used go first."""

EXPANDED_BYTES = 128 * 2**20
"""Captured rows of an assignment are kept as lists up to this size; those of further layers are
made in every pass."""


class TableCache:
    """Tables by grid, patterns and device."""

    def __init__(self) -> None:
        self._lowered: dict[TokenGrid, dict[tuple[Patterns, str], list[BlockTable]]] = {}

    def lowered(
        self, grid: TokenGrid, patterns: Patterns, device: torch.device | str
    ) -> list[BlockTable]:
        """A table per layer, captured rows still empty. Layers share all but their heads' rows.

        Args:
            grid: the token grid.
            patterns: of every layer, one per head.
            device: where the tables are to be.
        """
        key = (patterns, str(device))
        tables = self._lowered[grid] = self._lowered.pop(grid, {})  # the last one used
        if key not in tables:
            start = time.perf_counter()
            rows = list(dict.fromkeys(pattern for layer in patterns for pattern in layer))
            shared = lower(rows, grid).to(device)
            tables[key] = [shared.with_heads([rows.index(p) for p in layer]) for layer in patterns]
            logger.debug("lowered patterns for %s in %.2f s", grid, time.perf_counter() - start)
            while len(self._lowered) > 1 and self._nbytes() > LOWERED_BYTES:
                self._lowered.pop(next(iter(self._lowered)))
        return tables[key]

    def _nbytes(self) -> int:
        """Bytes of all tables; what layers share counts once."""
        tensors = (
            value
            for assignments in self._lowered.values()
            for layers in assignments.values()
            for table in layers
            for value in vars(table).values()
            if isinstance(value, torch.Tensor)
        )
        return sum({id(tensor): tensor.nbytes for tensor in tensors}.values())


def prepare(
    tables: Sequence[Sequence[BlockTable]], rows: Sequence[tuple[CapturedRows, ...] | None]
) -> Prepared:
    """What every layer is given for an assignment.

    Args:
        tables: of every grid, one table per layer.
        rows: captured rows of every layer; None if some were not measured.

    Returns:
        For every layer its tables, one per grid, and the captured rows that are still to be set in
        them, because those of all layers are too big to keep as lists.
    """
    kept: list[tuple[CapturedRows, ...]] = []
    size = 0
    for layer in rows:
        size += len(tables) * sum(row.expanded_nbytes for row in layer or ())
        kept.append((layer or ()) if size <= EXPANDED_BYTES else ())
    left = [() if done else layer for layer, done in zip(rows, kept, strict=True)]
    expanded = [_expanded(grid, kept) for grid in tables]
    return list(zip(zip(*expanded, strict=True), left, strict=True))


def _expanded(
    tables: Sequence[BlockTable], rows: Sequence[Sequence[CapturedRows]]
) -> list[BlockTable]:
    """Every layer's table with its captured rows, if it has some."""
    whole = list(tables)
    chosen = [index for index, layer in enumerate(rows) if layer]
    if chosen:
        done = expand([tables[index] for index in chosen], [rows[index] for index in chosen])
        for index, table in zip(chosen, done, strict=True):
            whole[index] = table
    return whole
