"""CPU backend: query blocks with the same key list share one call of PyTorch's flash attention."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ajour.backends.pooling import group_bias, pack, pool_blocks
from ajour.grid import BLOCK
from ajour.table import LEVELS

if TYPE_CHECKING:
    from ajour.table import BlockTable

Lists = tuple[tuple[int, ...], ...]
"""The key block ids of a query block, one tuple per level."""


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, table: BlockTable, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention through a block table on the CPU. Arguments and result as `reference.attend`."""
    out = torch.empty_like(q)
    lse = torch.empty(q.shape[0], q.shape[2], q.shape[1], dtype=torch.float32)
    for row in table.head_rows.unique().tolist():
        heads = torch.nonzero(table.head_rows == row).flatten()
        query, key, value = (pack(x, table, row, heads) for x in (q, k, v))
        result, sums = _attend_row(query, key, value, table, row, scale)
        slots = table.slots[int(table.row_order[row])].long()
        filled = slots >= 0
        out[:, slots[filled][:, None], heads] = result[:, :, filled].transpose(1, 2)
        lse[:, heads[:, None], slots[filled]] = sums[:, :, filled]
    return out, lse


def _attend_row(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, table: BlockTable, row: int, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Heads of one pattern row: (B, h, N, 128, D) to (B, h, N * 128, D) and LSE (B, h, N * 128)."""
    lists = _lists(table, row)
    used = [h for h in range(LEVELS) if any(entry[h] for entry in lists)]
    keys = {h: pool_blocks(k, table.valid, h).flatten(2, 3) for h in used}
    values = {h: pool_blocks(v, table.valid, h).flatten(2, 3) for h in used}
    biases = {h: group_bias(table.valid, h).to(q.dtype).flatten() for h in used}
    q = q.flatten(2, 3)
    out = torch.zeros_like(q)
    lse = torch.full(q.shape[:3], -math.inf, dtype=torch.float32)
    for start, stop in _runs(lists):
        spans = [
            (h, lo * size, hi * size)
            for h in used
            for size in (BLOCK >> h,)
            for lo, hi in _intervals(lists[start][h])
        ]
        if not spans:
            continue
        rows = slice(start * BLOCK, stop * BLOCK)
        bias = _join([biases[h][lo:hi] for h, lo, hi in spans], 0)
        out[:, :, rows], lse[:, :, rows] = torch._scaled_dot_product_flash_attention_for_cpu(
            q[:, :, rows],
            _join([keys[h][:, :, lo:hi] for h, lo, hi in spans], 2),
            _join([values[h][:, :, lo:hi] for h, lo, hi in spans], 2),
            attn_mask=bias.expand(1, 1, (stop - start) * BLOCK, -1) if bias.any() else None,
            scale=scale,
        )
    return out, lse


def _lists(table: BlockTable, row: int) -> list[Lists]:
    """The lists of every query block of a row, ascending."""
    return [
        tuple(
            tuple(sorted(table.ids[lo:hi].tolist()))
            for lo, hi in zip(bounds[:-1], bounds[1:], strict=True)
        )
        for bounds in table.offsets[row].tolist()
    ]


def _runs(lists: list[Lists]) -> list[tuple[int, int]]:
    """Runs [start, stop) of consecutive query blocks with equal lists."""
    edges = [i for i in range(1, len(lists)) if lists[i] != lists[i - 1]]
    return list(zip([0, *edges], [*edges, len(lists)], strict=True))


def _intervals(ids: tuple[int, ...]) -> list[tuple[int, int]]:
    """Maximal runs [start, stop) of consecutive ids in an ascending list."""
    edges = [i for i in range(1, len(ids)) if ids[i] != ids[i - 1] + 1]
    starts, stops = [0, *edges], [*edges, len(ids)]
    return [(ids[a], ids[b - 1] + 1) for a, b in zip(starts, stops, strict=True)] if ids else []


def _join(parts: list[torch.Tensor], dim: int) -> torch.Tensor:
    """Concatenate, without a copy if there is one part."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
