"""Level maps to the lists of key blocks that kernels walk: on any device, never waiting for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ajour.grid import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ajour.grid import TokenGrid

LEVELS = 4
"""Pooling levels 0..3: a level-h entry stands for a key block mean-pooled 2**h-fold."""

DROPPED = -1
"""The level of a key block that a query block does not attend to."""


def indices(numbers: Iterable[int], device: torch.device) -> torch.Tensor:
    """Numbers known to the host as int64 on a device: made there, so that nothing waits for it."""
    runs: list[list[int]] = [[0, 0]]
    for number in numbers:
        if number == runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([number, number + 1])
    return torch.cat([torch.arange(start, stop, device=device) for start, stop in runs])


def key_lists(levels: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The lists of every (row, query block, level): partial key blocks first, others ascending.

    Args:
        levels: int8 (rows, N, N), the level of each key block for each query block, or -1.
        valid: (N,), tokens in each block.

    Returns:
        offsets int32 (rows, N, LEVELS + 1) into ids int32 (rows * N * N): where the list of each
        level starts. Every query block has room for N entries, of which those past its last list
        mean nothing.

    Raises:
        ValueError: if the entries cannot be counted in 32 bits.
    """
    rows, blocks, _ = levels.shape
    if levels.numel() >= 2**31:
        raise ValueError(
            f"a table holds at most 2**31 - 1 entries, this one needs {levels.numel()}"
        )
    device = levels.device
    columns = (valid == BLOCK).to(torch.int8).sort(stable=True).indices
    levels = levels[..., columns]
    counts = torch.stack([(levels == h).sum(-1, dtype=torch.int32) for h in range(LEVELS)], -1)
    first = torch.arange(rows * blocks, dtype=torch.int32, device=device) * blocks
    offsets = torch.cat([torch.zeros_like(counts[..., :1]), counts.cumsum(-1)], -1).int()
    offsets += first.view(rows, blocks, 1)
    # A block's place is its level's start plus how many of that level come before it.
    last = levels.numel()
    places = torch.full_like(levels, last, dtype=torch.int32)
    for level in range(LEVELS):
        chosen = levels == level
        place = offsets[..., level, None] + chosen.cumsum(-1, dtype=torch.int32) - 1
        places = torch.where(chosen, place, places)
    ids = torch.zeros(last + 1, dtype=torch.int32, device=device)
    ids[places.long()] = columns.int()
    return offsets, ids[:-1]


def compact(offsets: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same lists without the room between them."""
    room = len(ids) // offsets[..., 0].numel()
    ends = offsets[..., -1] - offsets[..., 0]
    kept = torch.arange(room, device=ids.device) < ends[..., None]
    starts = ends.flatten().cumsum(0).view_as(ends) - ends
    shifted = offsets - offsets[..., :1] + starts[..., None].int()
    return shifted, ids[kept.flatten()]


WORK = 16
"""Numbers in a work item."""


def work_items(
    offsets: torch.Tensor,
    ids: torch.Tensor,
    valid: torch.Tensor,
    row_order: torch.Tensor,
    head_rows: torch.Tensor,
) -> torch.Tensor:
    """Every (head, query block) with its lists, in the order in which a GPU should take them.

    Heads one after the other, whose keys and values then stay in the cache; heads with most tiles
    first, and in a head the longest lists first, so that what runs last is short.

    Args:
        offsets: int32 (rows, N, LEVELS + 1).
        ids: int32 (entries,).
        valid: int32 (N,).
        row_order: int32 (rows,).
        head_rows: int32 (heads,).

    Returns:
        int32 (heads * N, WORK): head, query block, the five offsets, `row_order`, the six numbers
        of `masked_tiles`, and zeros.
    """
    rows = head_rows.long()
    tiles = tile_counts(offsets)[rows]
    heads = tiles.sum(1).argsort(descending=True, stable=True)
    blocks = tiles[heads].argsort(dim=1, descending=True, stable=True)
    rows = rows[heads, None].expand_as(blocks)
    item = [heads[:, None].expand_as(blocks), blocks, row_order[rows]]
    head, block, order = (x.int()[..., None] for x in item)
    masks = masked_tiles(offsets, ids, valid)[rows, blocks]
    found = torch.cat([head, block, offsets[rows, blocks], order, masks], -1).flatten(0, 1)
    return torch.nn.functional.pad(found, (0, WORK - found.shape[-1]))


def masked_tiles(offsets: torch.Tensor, ids: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """The tiles of each (row, query block) that a kernel must mask, and how.

    These are the partial blocks of level 0, and of each pooled level the first tile if it lacks
    entries or has a partial block. (A level-h tile holds 2**h entries; the first tile of a list
    takes what is left over.)

    Args:
        offsets: int32 (rows, N, LEVELS + 1).
        ids: int32 (entries,).
        valid: int32 (N,).

    Returns:
        int32 (rows, N, 6). The first number counts level 0's masked tiles, and has bit h + 1 set if
        the first tile of level h is masked. The others describe the masked tiles in that sequence,
        or, if there are none, the first tile: level + 4 * entries + 64 * tokens of the first entry.
    """
    device = offsets.device
    level = torch.arange(LEVELS, device=device)  # made on the device: nothing waits for it
    width = 2**level
    count = (offsets[..., 1:] - offsets[..., :-1]).long()
    entries = count - ((count - 1).clamp(min=0) >> level << level)
    room = max(len(ids) - 1, 0)
    seconds = offsets[..., :1] + 1
    places = torch.cat([offsets[..., :1], seconds, offsets[..., 1:LEVELS]], -1).long()
    known = ids if len(ids) else ids.new_zeros(1)
    tokens = valid[known[places.clamp(max=room)].long()].long()
    slot_level = (torch.arange(LEVELS + 1, device=device) - 1).clamp(min=0)
    there = torch.cat([count[..., :1] > 0, count[..., :1] > 1, count[..., 1:] > 0], -1)
    entries = torch.cat([entries[..., :1], entries], -1)
    masked = there & ((entries < width[slot_level]) | (tokens < BLOCK))
    bits = torch.where(slot_level > 0, 2 * width[slot_level], 1)
    summary = (masked * bits).sum(-1, keepdim=True)
    # Without any masked tile, the first one.
    first = there & (there.cumsum(-1) == 1) & ~masked.any(-1, keepdim=True)
    told = masked | first
    words = slot_level + 4 * entries + 64 * tokens
    slots = torch.where(told, told.cumsum(-1) - 1, LEVELS + 1)
    packed = words.new_zeros(*words.shape[:-1], LEVELS + 2).scatter(-1, slots, words)
    return torch.cat([summary, packed[..., : LEVELS + 1]], -1).int()


def tile_counts(offsets: torch.Tensor) -> torch.Tensor:
    """Tiles of 128 keys of each (row, query block): int64 (rows, N).

    2**h level-h entries share a tile.

    Args:
        offsets: int32 (rows, N, LEVELS + 1).
    """
    count = (offsets[..., 1:] - offsets[..., :-1]).long()
    width = 2 ** torch.arange(LEVELS, device=count.device)
    return ((count + width - 1) // width).sum(-1)


def with_exact(levels: torch.Tensor, grid: TokenGrid) -> torch.Tensor:
    """Level maps of video blocks with the grid's text blocks around them.

    Text is always exact: a key of every query block that has any key, and a query of all.

    Args:
        levels: int8 (rows, Nv, Nv).
        grid: the token grid.

    Returns:
        int8 (rows, N, N).
    """
    return torch.nn.functional.pad(with_exact_keys(levels, grid), (0, 0, 0, grid.exact_blocks))


def with_exact_keys(levels: torch.Tensor, grid: TokenGrid) -> torch.Tensor:
    """Levels of video keys, and behind them those of the text blocks.

    Args:
        levels: int8 (..., Nv).
        grid: the token grid.

    Returns:
        int8 (..., N).
    """
    if not grid.exact_blocks:
        return levels
    text = -(levels == DROPPED).all(dim=-1, keepdim=True).to(torch.int8)
    return torch.cat([levels, text.expand(*levels.shape[:-1], grid.exact_blocks)], dim=-1)


def tile_shares(levels: torch.Tensor) -> torch.Tensor:
    """Share of dense attention's tiles that each level map computes: float32 (rows,).

    Args:
        levels: int8 (rows, N, N).
    """
    counts = torch.stack([(levels == level).sum(dim=2) for level in range(LEVELS)], dim=-1)
    width = 2 ** torch.arange(LEVELS, device=levels.device)
    tiles = (counts + width - 1) // width
    return tiles.sum(dim=(1, 2)).float() / levels.shape[1] ** 2
