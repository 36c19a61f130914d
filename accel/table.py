"""BlockTable: what every pattern lowers to, and the only thing that a kernel sees."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.weak import WeakTensorKeyDictionary

from ajour.grid import BLOCK, TokenGrid
from ajour.layout import block_sizes, token_places, token_slots
from ajour.lists import DROPPED, LEVELS, compact, key_lists, tile_counts, with_exact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_derived = WeakTensorKeyDictionary()
"""What `BlockTable.derived` returns, by `offsets`: compiled code makes a new table per call."""


@dataclass(frozen=True)
class BlockTable:
    """Which key blocks each query block of each head attends to, and at which pooling level.

    Tokens are laid out in N blocks of 128 slots: video blocks in the row's order, then blocks of
    exact tokens. Within the list of a (row, query block, level), partial blocks come first and the
    others are ascending, so only the first tiles of a level can need a mask. A key block appears at
    most once for a query block. A level-h entry contributes 128 / 2**h keys: each is the mean of
    the tokens in 2**h consecutive slots, and the logarithm of their number is added to its logit.

    Args:
        grid: the token grid that the table is for.
        highest_level: upper bound of the levels that the heads use; 0 for an empty table.
        slots: int32 (orders, N * 128), model-order index of the token in a slot, -1 if empty.
        valid: int32 (N,), tokens in each block.
        offsets: int32 (rows, N, LEVELS + 1), where the list of each level starts in `ids`.
        ids: int32 (entries,), key block ids; entries outside of all lists are not used.
        row_order: int32 (rows,), the row of `slots` that a pattern row uses.
        head_rows: int32 (heads,), the pattern row of each head.
        places: int32 (orders, tokens), the slot of each token; the inverse of `slots`.
        empty_slots: int64 (n,), slots without a token, the same in every order; n is below 256.
    """

    grid: TokenGrid
    highest_level: int
    slots: torch.Tensor
    valid: torch.Tensor
    offsets: torch.Tensor
    ids: torch.Tensor
    row_order: torch.Tensor
    head_rows: torch.Tensor
    places: torch.Tensor
    empty_slots: torch.Tensor

    @classmethod
    def from_levels(
        cls,
        grid: TokenGrid,
        levels: Sequence[NDArray[np.int8]],
        orders: Sequence[str],
        head_rows: Sequence[int],
    ) -> BlockTable:
        """Build a table from one level map per pattern row.

        Args:
            grid: the token grid.
            levels: per row, int8 (N, N): level 0..3 of each (query block, key block), or -1.
            orders: per row, the name of its order.
            head_rows: per head, its row.

        Raises:
            ValueError: if shapes disagree, a level is out of range, a block of exact tokens is
                pooled, or a head has a row that does not exist.
        """
        blocks = grid.blocks
        if not levels or len(levels) != len(orders):
            raise ValueError(
                "a table needs one order per level map and at least one map, "
                f"got {len(levels)} maps and {len(orders)} orders"
            )
        if not head_rows or not all(0 <= row < len(levels) for row in head_rows):
            raise ValueError(f"head rows must lie in 0..{len(levels) - 1}, got {list(head_rows)}")
        valid = block_sizes(grid)
        names = sorted(set(orders))
        for row, level_map in enumerate(levels):
            if level_map.shape != (blocks, blocks):
                raise ValueError(
                    f"level map {row} must be {(blocks, blocks)} for grid {grid}, "
                    f"got {level_map.shape}"
                )
            if level_map.min() < DROPPED or level_map.max() >= LEVELS:
                raise ValueError(f"levels must lie in -1..{LEVELS - 1}, level map {row} has others")
            if (level_map[:, grid.video_blocks :] > 0).any():
                raise ValueError(
                    "blocks of exact tokens cannot be pooled: their level must be 0 or -1"
                )
        offsets, ids = key_lists(torch.from_numpy(np.stack(levels)), torch.from_numpy(valid))
        offsets, ids = compact(offsets, ids)
        slots = np.stack([token_slots(grid, name) for name in names])
        places = token_places(slots, grid)
        return cls(
            grid=grid,
            slots=torch.from_numpy(slots),
            valid=torch.from_numpy(valid),
            offsets=offsets,
            ids=ids,
            row_order=torch.from_numpy(np.array([names.index(x) for x in orders], dtype=np.int32)),
            head_rows=torch.from_numpy(np.array(head_rows, dtype=np.int32)),
            places=torch.from_numpy(places.astype(np.int32)),
            empty_slots=torch.from_numpy(np.flatnonzero(slots[0] < 0)),
            highest_level=max(0, *(int(levels[row].max()) for row in head_rows)),
        )

    @property
    def heads(self) -> int:
        """Number of heads."""
        return self.head_rows.shape[0]

    @property
    def derived(self) -> dict[str, Any]:
        """What backends derive from the lists and keep, by name of the backend.

        Tables with the same `offsets` share it, and it lives as long as they do. What also depends
        on `head_rows` needs them in its key.
        """
        kept: dict[str, Any] = _derived.setdefault(self.offsets, {})
        return kept

    @property
    def partial_blocks(self) -> int:
        """Blocks with fewer than 128 tokens: at most one of video and one of exact tokens."""
        grid = self.grid
        return int(grid.video_tokens % BLOCK != 0) + int(grid.exact_tokens % BLOCK != 0)

    def with_heads(self, head_rows: Sequence[int]) -> BlockTable:
        """The same rows for another layer's heads; all other tensors are shared.

        Waits for the table's device, to know whether these heads have pooled keys.
        """
        heads = torch.tensor(list(head_rows), dtype=torch.int32, device=self.head_rows.device)
        levels = self.offsets[heads.long()].diff(dim=-1).sum((0, 1)).nonzero().flatten().tolist()
        highest = max(levels, default=0)
        return replace(self, head_rows=heads, highest_level=highest)

    @staticmethod
    def with_rows(
        tables: Sequence[BlockTable], rows: Sequence[tuple[torch.Tensor, torch.Tensor, int]]
    ) -> list[BlockTable]:
        """Give some heads of each layer new rows, in the orders of their present rows.

        Everything happens on the tables' device and nothing waits for it. All lists are kept, used
        or not, in one `ids` that the layers share: dropping some would have to wait.

        Args:
            tables: one per layer, from `with_heads` of one table.
            rows: for each layer, levels of video keys for video queries, int8 (rows, Nv, Nv), -1
                where dropped; the heads that get them, int64 (rows,), each at most once; and the
                highest level that can occur.

        Raises:
            ValueError: if the tables do not share their lists.
        """
        shared = tables[0]
        if any(table.ids is not shared.ids for table in tables):
            raise ValueError("the tables of several layers must share their lists")
        levels = torch.cat([levels for levels, _, _ in rows])
        lists, ids = key_lists(with_exact(levels, shared.grid), shared.valid)
        lists = lists + len(shared.ids)
        ids = torch.cat([shared.ids, ids])
        extended, start = [], 0
        for table, (_, heads, highest) in zip(tables, rows, strict=True):
            stop = start + len(heads)
            new_rows = torch.arange(len(heads), dtype=torch.int32, device=ids.device)
            orders = table.row_order[table.head_rows[heads].long()]
            extended.append(
                replace(
                    table,
                    offsets=torch.cat([table.offsets, lists[start:stop]]),
                    ids=ids,
                    row_order=torch.cat([table.row_order, orders]),
                    head_rows=table.head_rows.scatter(0, heads, new_rows + len(table.row_order)),
                    highest_level=max(table.highest_level, highest),
                )
            )
            start = stop
        return extended

    def to(self, device: torch.device | str) -> BlockTable:
        """The table on another device."""
        tensors: dict[str, Any] = {
            entry.name: value.to(device)
            for entry in fields(self)
            if isinstance(value := getattr(self, entry.name), torch.Tensor)
        }
        return replace(self, **tensors)

    def row_tiles(self) -> torch.Tensor:
        """Tiles of 128 keys computed per row: int64 (rows,)."""
        return tile_counts(self.offsets).sum(1)

    def density(self) -> float:
        """Share of dense attention's tiles that this layer computes, averaged over its heads."""
        return float(self.row_tiles()[self.head_rows.long()].double().mean()) / self.grid.blocks**2
