"""The oracle: eager attention through a block table. It defines the result of every backend."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ajour.backends.pooling import group_bias, pool_blocks
from ajour.grid import BLOCK
from ajour.lists import LEVELS

if TYPE_CHECKING:
    from ajour.prologue import Prologue
    from ajour.table import BlockTable


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    table: BlockTable,
    scale: float,
    prologue: Prologue | None = None,
    compute_dtype: torch.dtype = torch.float64,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of each query block over the concatenation of its lists.

    Args:
        q: (batch, tokens, heads, head_dim).
        k: same shape.
        v: same shape.
        table: the block table.
        scale: factor on the logits.
        prologue: norms and rotation of q and k to apply first.
        compute_dtype: dtype of all arithmetic: float64 for the oracle, the dtype of the inputs for
            the eager attention from which tolerances are derived.

    Returns:
        (out like q, natural LSE float32 (batch, heads, tokens)).
    """
    dtype = q.dtype
    q, k, v = (x.to(compute_dtype) for x in (q, k, v))
    if prologue is not None:
        q, k = prologue.apply(q, k)
    out = torch.zeros_like(q)
    shape = (q.shape[0], q.shape[2], q.shape[1])
    lse = torch.full(shape, -math.inf, dtype=torch.float32, device=q.device)
    offsets, valid = table.offsets.tolist(), table.valid.tolist()
    for head, row in enumerate(table.head_rows.tolist()):
        slots = table.slots[int(table.row_order[row])].long().unflatten(0, (-1, BLOCK))
        queries, blocks_k, blocks_v = (
            x[:, slots.clamp(min=0), head].masked_fill(slots[..., None] < 0, 0) for x in (q, k, v)
        )
        keys, values, biases = [], [], []
        for level in range(LEVELS):
            keys.append(pool_blocks(blocks_k, table.valid, level))
            values.append(pool_blocks(blocks_v, table.valid, level))
            biases.append(group_bias(table.valid, level).to(compute_dtype))
        for block in range(table.grid.blocks):
            bounds = offsets[row][block]
            chosen = [table.ids[bounds[h] : bounds[h + 1]].long() for h in range(LEVELS)]
            bias = torch.cat([biases[h][ids].flatten() for h, ids in enumerate(chosen)])
            kept = bias > -math.inf
            if not kept.any():
                continue
            key = torch.cat([keys[h][:, ids].flatten(1, 2) for h, ids in enumerate(chosen)], 1)
            value = torch.cat([values[h][:, ids].flatten(1, 2) for h, ids in enumerate(chosen)], 1)
            query = queries[:, block, : valid[block]]
            logits = query @ key[:, kept].transpose(1, 2) * scale + bias[kept]
            tokens = slots[block, : valid[block]]
            out[:, tokens, head] = logits.softmax(dim=-1) @ value[:, kept]
            lse[:, head, tokens] = torch.logsumexp(logits, dim=-1).float()
    return out.to(dtype), lse
