"""Work items of the Hopper kernel: derived from a block table on its device, without waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from ajour.grid import BLOCK
from ajour.lists import LEVELS, tile_counts

if TYPE_CHECKING:
    from ajour.table import BlockTable

ITEM_SIZE = 16
"""Numbers in a work item."""


def work_items(table: BlockTable) -> torch.Tensor:
    """Every (head, query block) with its lists, in the order in which a GPU should take them.

    One head after the other, so that its keys and values stay in the cache: heads with most tiles
    first and, within a head, the query blocks with most tiles first, so that the last items are
    short. Derived on first use and kept with the table.

    Returns:
        int32 (heads * N, ITEM_SIZE): head, query block, the five offsets, the row of `slots`, the
        six numbers of `masked_tiles`, and zeros.
    """
    kept = table.derived.get("hopper")
    if kept is None:
        kept = table.derived["hopper"] = WeakTensorKeyDictionary()
    items: torch.Tensor | None = kept.get(table.head_rows)
    if items is None:
        items = _derive(table)
        # What a CUDA graph captures holds no values before the graph runs.
        if not (items.is_cuda and torch.cuda.is_current_stream_capturing()):
            kept[table.head_rows] = items
    return items


def _derive(table: BlockTable) -> torch.Tensor:
    rows = table.head_rows.long()
    tiles = tile_counts(table.offsets)[rows]
    heads = tiles.sum(1).argsort(descending=True, stable=True)
    blocks = tiles[heads].argsort(dim=1, descending=True, stable=True)
    rows = rows[heads, None].expand_as(blocks)
    columns = [heads[:, None].expand_as(blocks), blocks, table.row_order[rows]]
    head, block, order = (column.int()[..., None] for column in columns)
    masks = masked_tiles(table)[rows, blocks]
    items = torch.cat([head, block, table.offsets[rows, blocks], order, masks], -1).flatten(0, 1)
    return torch.nn.functional.pad(items, (0, ITEM_SIZE - items.shape[-1]))


def masked_tiles(table: BlockTable) -> torch.Tensor:
    """The tiles of each (row, query block) that the kernel must mask, and how.

    These are the partial blocks of level 0, and of each pooled level the first tile if it lacks
    entries or has a partial block. (A level-h tile holds 2**h entries; the first tile of a list
    takes the remainder.)

    Returns:
        int32 (rows, N, 6). The first number counts the masked tiles of level 0, and has bit h + 1
        set if the first tile of level h is masked. The others describe the masked tiles in that
        sequence, or, if there are none, the first tile: level + 4 * entries + 64 * tokens of the
        first entry.
    """
    offsets, ids, valid = table.offsets, table.ids, table.valid
    level = torch.arange(LEVELS, device=offsets.device)  # made on the device: nothing waits for it
    width = 2**level
    count = (offsets[..., 1:] - offsets[..., :-1]).long()
    entries = count - ((count - 1).clamp(min=0) >> level << level)
    last = max(len(ids) - 1, 0)
    seconds = offsets[..., :1] + 1
    places = torch.cat([offsets[..., :1], seconds, offsets[..., 1:LEVELS]], -1).long()
    some_ids = ids if len(ids) else ids.new_zeros(1)
    tokens = valid[some_ids[places.clamp(max=last)].long()].long()
    # Five tiles can need a mask: the first two of level 0 and the first of each pooled level.
    tile_level = (torch.arange(LEVELS + 1, device=offsets.device) - 1).clamp(min=0)
    exists = torch.cat([count[..., :1] > 0, count[..., :1] > 1, count[..., 1:] > 0], -1)
    entries = torch.cat([entries[..., :1], entries], -1)
    masked = exists & ((entries < width[tile_level]) | (tokens < BLOCK))
    bits = torch.where(tile_level > 0, 2 * width[tile_level], 1)
    summary = (masked * bits).sum(-1, keepdim=True)
    first = exists & (exists.cumsum(-1) == 1) & ~masked.any(-1, keepdim=True)
    described = masked | first
    words = tile_level + 4 * entries + 64 * tokens
    slots = torch.where(described, described.cumsum(-1) - 1, LEVELS + 1)
    packed = words.new_zeros(*words.shape[:-1], LEVELS + 2).scatter(-1, slots, words)
    return torch.cat([summary, packed[..., : LEVELS + 1]], -1).int()
