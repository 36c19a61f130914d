"""Lists of key blocks from level maps, computed on any device without waiting for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ajour.grid import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ajour.grid import TokenGrid

LEVELS = 4
"""Number of pooling levels, 0 to 3: at level h, 2**h consecutive keys are averaged to one."""

DROPPED = -1
"""The level of a key block that a query block does not attend to."""


def indices(numbers: Iterable[int], device: torch.device) -> torch.Tensor:
    """An int64 tensor of numbers known on the CPU, made on a device without waiting for it."""
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
        offsets int32 (rows, N, LEVELS + 1), where the list of each level starts in ids, and ids
        int32 (rows * N * N). Every query block has room for N entries; the entries after its last
        list are not used.

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
    # The place of a block: the start of its level's list, plus the blocks before it in that list.
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
    """The same lists without the unused entries between them."""
    room = len(ids) // offsets[..., 0].numel()
    ends = offsets[..., -1] - offsets[..., 0]
    kept = torch.arange(room, device=ids.device) < ends[..., None]
    starts = ends.flatten().cumsum(0).view_as(ends) - ends
    shifted = offsets - offsets[..., :1] + starts[..., None].int()
    return shifted, ids[kept.flatten()]


def tile_counts(offsets: torch.Tensor) -> torch.Tensor:
    """Tiles of 128 keys of each (row, query block): int64 (rows, N).

    Args:
        offsets: int32 (rows, N, LEVELS + 1).
    """
    return _tiles(offsets.diff(dim=-1).long())


def _tiles(counts: torch.Tensor) -> torch.Tensor:
    """Tiles of (..., LEVELS) entries, of which 2**h share a tile at level h: int64 (...)."""
    width = 2 ** torch.arange(LEVELS, device=counts.device)
    return ((counts + width - 1) // width).sum(-1)


def with_exact(levels: torch.Tensor, grid: TokenGrid) -> torch.Tensor:
    """Level maps of video blocks, (rows, Nv, Nv), with blocks of exact tokens: (rows, N, N).

    Exact tokens attend to everything, and every query block that has any key attends to them.
    """
    return torch.nn.functional.pad(with_exact_keys(levels, grid), (0, 0, 0, grid.exact_blocks))


def with_exact_keys(levels: torch.Tensor, grid: TokenGrid) -> torch.Tensor:
    """Levels of video keys, (..., Nv), followed by those of blocks of exact tokens: (..., N)."""
    if not grid.exact_blocks:
        return levels
    exact = -(levels == DROPPED).all(dim=-1, keepdim=True).to(torch.int8)
    return torch.cat([levels, exact.expand(*levels.shape[:-1], grid.exact_blocks)], dim=-1)


def tile_shares(levels: torch.Tensor) -> torch.Tensor:
    """Share of dense attention's tiles that each level map computes: float32 (rows,).

    Args:
        levels: int8 (rows, N, N).
    """
    counts = torch.stack([(levels == level).sum(dim=2) for level in range(LEVELS)], dim=-1)
    return _tiles(counts).sum(1).float() / levels.shape[1] ** 2
