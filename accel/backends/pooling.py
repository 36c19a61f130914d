"""Mean pooling of key and value blocks, as every backend must compute it."""

from __future__ import annotations

import math

import torch

from ajour.grid import BLOCK


def pool_blocks(blocks: torch.Tensor, valid: torch.Tensor, level: int) -> torch.Tensor:
    """Means of 2**level consecutive rows of each block, over the rows that hold tokens.

    Summed in float32 or better, and rounded once.

    Args:
        blocks: (..., N, 128, head_dim), empty slots zero.
        valid: (N,), tokens in each block.
        level: 0..3.

    Returns:
        (..., N, 128 / 2**level, head_dim); a group without tokens is zero.
    """
    if level == 0:
        return blocks
    wide = torch.promote_types(blocks.dtype, torch.float32)
    members = group_sizes(valid, level).clamp(min=1).to(wide)
    total = blocks.unflatten(-2, (BLOCK >> level, 1 << level)).sum(dim=-2, dtype=wide)
    return (total / members[..., None]).to(blocks.dtype)


def group_sizes(valid: torch.Tensor, level: int) -> torch.Tensor:
    """Tokens of each group of 2**level rows: int64 (N, 128 / 2**level)."""
    start = torch.arange(BLOCK >> level, device=valid.device) * (1 << level)
    return (valid[:, None].long() - start).clamp(min=0, max=1 << level)


def group_bias(valid: torch.Tensor, level: int) -> torch.Tensor:
    """Logit bias of each group: ln of its tokens, or -inf. float64 (N, 128 / 2**level)."""
    sizes = group_sizes(valid, level).double()
    return torch.where(sizes > 0, sizes.clamp(min=1).log(), torch.full_like(sizes, -math.inf))
