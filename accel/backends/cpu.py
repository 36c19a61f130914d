"""CPU backend: query blocks with the same keys share one call of PyTorch's flash attention."""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING

import torch

from ajour.backends.pooling import group_bias, pool_blocks
from ajour.grid import BLOCK

if TYPE_CHECKING:
    from ajour.table import BlockTable


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, table: BlockTable, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention through a block table on the CPU. Arguments and result as `reference.attend`."""
    batch, tokens, heads, dim = q.shape
    inputs = [x.reshape(-1, dim) for x in (q, k, v)]
    total = batch * tokens * heads
    # Empty slots write to an extra row.
    out = q.new_empty(total + 1, dim)
    lse = torch.empty(total + 1)
    first = torch.arange(batch)[:, None] * tokens
    for row in table.head_rows.unique().tolist():
        slots = table.slots[int(table.row_order[row])].long()
        owned = (table.head_rows == row).nonzero()[:, None]
        places = ((first + slots) * heads + owned).masked_fill_(slots < 0, total).flatten(0, 1)
        query, key, value = (
            x.index_select(0, places.clamp(max=total - 1).flatten()).view(*places.shape, dim)
            for x in inputs
        )
        if table.partial_blocks:
            key[:, slots < 0] = 0
            value[:, slots < 0] = 0
        _attend_row(query, key, value, places, out, lse, table, row, scale)
    return out[:-1].view(q.shape), lse[:-1].view(q.shape[:3]).transpose(1, 2).contiguous()


def _attend_row(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    places: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    table: BlockTable,
    row: int,
    scale: float,
) -> None:
    """Attention of the heads of a pattern row.

    Args:
        q: (heads, slots, head_dim).
        k: same shape, empty slots zero.
        v: same shape, empty slots zero.
        places: (heads, slots), where the result of a query goes in `out` and `lse`.
        out: (places, head_dim), written.
        lse: (places,), written.
        table: the block table.
        row: the pattern row.
        scale: factor on the logits.
    """
    blocks = table.key_runs[row]
    levels = {level for runs in blocks for level, _, _ in runs}
    keys, values = (
        {
            level: pool_blocks(x.unflatten(1, (-1, BLOCK)), table.valid, level).flatten(1, 2)
            for level in levels
        }
        for x in (k, v)
    )
    biases = {level: group_bias(table.valid, level).to(q.dtype).flatten() for level in levels}
    stop = 0
    for runs, same in groupby(blocks):
        queries = slice(stop, stop := stop + BLOCK * len(list(same)))
        target = places[:, queries].t().flatten()
        if not runs:
            out.index_fill_(0, target, 0)
            lse.index_fill_(0, target, -math.inf)
            continue
        pooled = any(level for level, _, _ in runs)
        bias = torch.cat([biases[level][lo:hi] for level, lo, hi in runs]) if pooled else None
        key, value = (
            _join([x[level][None, :, lo:hi] for level, lo, hi in runs]) for x in (keys, values)
        )
        result, sums = torch._scaled_dot_product_flash_attention_for_cpu(
            q[None, :, queries],
            key,
            value,
            attn_mask=None if bias is None else bias.expand(1, 1, len(target) // len(q), -1),
            scale=scale,
        )
        out.index_copy_(0, target, result[0].transpose(0, 1).flatten(0, 1))
        lse.index_copy_(0, target, sums[0].t().flatten().to(lse.dtype))


def _join(parts: list[torch.Tensor]) -> torch.Tensor:
    """Concatenate along the keys, without a copy if there is one part."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)
