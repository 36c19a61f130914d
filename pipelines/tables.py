"""The block tables of one transformer, made once per grid."""

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

logger = logging.getLogger("ajour")

LOWERED_BYTES = 512 * 2**20
"""Tables of further grids are kept up to this size; the least recently used go first."""


class TableCache:
    """Tables by grid, assignment and device."""

    def __init__(self) -> None:
        self._lowered: dict[TokenGrid, dict[tuple[str, str], list[BlockTable]]] = {}

    def lowered(
        self,
        grid: TokenGrid,
        name: str,
        patterns: Sequence[Sequence[Pattern]],
        device: torch.device | str,
    ) -> list[BlockTable]:
        """A table per layer. Layers share all but the map from heads to rows.

        Args:
            grid: the token grid.
            name: of the assignment.
            patterns: of every layer, one per head; always the same for a name.
            device: where the tables are to be.
        """
        key = (name, str(device))
        tables = self._lowered[grid] = self._lowered.pop(grid, {})  # the last one used
        if key not in tables:
            start = time.perf_counter()
            rows = list(dict.fromkeys(pattern for layer in patterns for pattern in layer))
            shared = lower(rows, grid).to(device)
            tables[key] = [shared.with_heads([rows.index(p) for p in layer]) for layer in patterns]
            logger.debug("lowered %s for %s in %.2f s", name, grid, time.perf_counter() - start)
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

    def clear(self) -> None:
        """Drop everything: the plan is another one."""
        self._lowered.clear()


def expanded(
    tables: Sequence[BlockTable], rows: Sequence[Sequence[CapturedRows]]
) -> list[BlockTable]:
    """Every layer's table with its captured rows, if it has some."""
    whole = list(tables)
    chosen = [index for index, found in enumerate(rows) if found]
    done = expand([tables[index] for index in chosen], [rows[index] for index in chosen])
    for index, table in zip(chosen, done, strict=True):
        whole[index] = table
    return whole
