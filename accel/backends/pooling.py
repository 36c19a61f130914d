"""Mean pooling of key and value blocks, as every backend must compute it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ajour.grid import BLOCK

if TYPE_CHECKING:
    from ajour.table import BlockTable


def pool_blocks(blocks: torch.Tensor, valid: torch.Tensor, level: int) -> torch.Tensor:
    """Means of 2**level consecutive rows of each block, over the rows that hold tokens.

    Args:
        blocks: (..., N, 128, head_dim), empty slots zero.
        valid: (N,), tokens in each block.
        level: 0..3.

    Returns:
        (..., N, 128 / 2**level, head_dim); a group without tokens is zero.
    """
    if level == 0:
        return blocks
    members = group_sizes(valid, level).clamp(min=1).to(blocks.dtype)
    total = blocks.unflatten(-2, (BLOCK >> level, 1 << level)).sum(dim=-2)
    return total / members[..., None]


def group_sizes(valid: torch.Tensor, level: int) -> torch.Tensor:
    """Tokens of each group of 2**level rows: int64 (N, 128 / 2**level)."""
    start = torch.arange(BLOCK >> level, device=valid.device) * (1 << level)
    return (valid[:, None].long() - start).clamp(min=0, max=1 << level)


def group_bias(valid: torch.Tensor, level: int) -> torch.Tensor:
    """Logit bias of each group: ln of its tokens, or -inf. float64 (N, 128 / 2**level)."""
    sizes = group_sizes(valid, level).double()
    return torch.where(sizes > 0, sizes.clamp(min=1).log(), torch.full_like(sizes, -math.inf))


def pack(x: torch.Tensor, table: BlockTable, row: int, heads: torch.Tensor) -> torch.Tensor:
    """Some heads of x in the block layout of a pattern row.

    Args:
        x: (batch, tokens, heads, head_dim).
        table: the block table.
        row: the pattern row, which has an order.
        heads: int64, the heads to pack.

    Returns:
        (batch, len(heads), N, 128, head_dim), empty slots zero.
    """
    slots = table.slots[int(table.row_order[row])].long()
    packed = x[:, slots.clamp(min=0)][:, :, heads].transpose(1, 2)
    return packed.masked_fill((slots < 0)[:, None], 0).unflatten(2, (-1, BLOCK))
