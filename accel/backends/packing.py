"""Packing on a GPU: gather tokens into the block layout of each head's order, pool key blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from ajour.grid import BLOCK as BLOCK_SIZE

if TYPE_CHECKING:
    import torch

    from ajour.table import BlockTable

POOLED_ROWS = BLOCK_SIZE - BLOCK_SIZE // 8
"""Pooled rows of a block over levels 1 to 3: 64 + 32 + 16."""


def padded_channels(head_dim: int) -> int:
    """The power of two, at least 16, that a head's channels are padded to."""
    return max(16, int(triton.next_power_of_2(head_dim)))


def pack(x: torch.Tensor, table: BlockTable, levels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Gather (batch, tokens, heads, head_dim) into block layout.

    Args:
        x: any strides.
        table: the block table.
        levels: number of levels, the exact level included: 1 pools nothing.

    Returns:
        Rows (batch * heads * blocks * 128, channels), channels being head_dim padded to a power
        of two, and the pooled rows, see `pool`.
    """
    batch, _, heads, head_dim = x.shape
    blocks, channels = table.grid.blocks, padded_channels(head_dim)
    packed = x.new_empty(batch * heads * blocks * BLOCK_SIZE, channels)
    pack_kernel[(blocks, batch * heads)](
        x, packed, table.slots, table.row_order, table.head_rows, *x.stride(), heads, blocks,
        D=head_dim, DP=channels, BLOCK=BLOCK_SIZE, num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    return packed, pool(packed, table, levels)


def pool(packed: torch.Tensor, table: BlockTable, levels: int) -> torch.Tensor:
    """Pooled rows: the means of 2, 4 and 8 consecutive packed rows, over the rows with tokens.

    Args:
        packed: (batch * heads * blocks * 128, channels), empty rows zero.
        table: the block table.
        levels: number of levels, the exact level included.

    Returns:
        (batch * heads, blocks * 112, channels): all rows of level 1, then of level 2, then of
        level 3. If `levels` is 1, the packed rows again.
    """
    if levels == 1:
        return packed
    blocks, channels = table.grid.blocks, packed.shape[1]
    entries = len(packed) // (blocks * BLOCK_SIZE)
    pooled = packed.new_empty(entries, blocks * POOLED_ROWS, channels)
    pool_kernel[(blocks, entries)](
        packed, pooled, table.valid, blocks,
        DP=channels, BLOCK=BLOCK_SIZE, TOP=levels - 1, num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    return pooled


@triton.jit
def pooled_sums(
    rows, pooled, size, block, blocks,
    DP: tl.constexpr, BLOCK: tl.constexpr, TOP: tl.constexpr, LEVEL: tl.constexpr,
    OFFSET: tl.constexpr,
):  # fmt: skip
    """Sums of 2**LEVEL rows from OFFSET on in every 2**TOP rows of a block; stores their means.

    A sum adds two sums of the level below, which the same thread holds: no data is exchanged.
    """
    group = tl.arange(0, BLOCK >> TOP) * (1 << TOP) + OFFSET
    channel = tl.arange(0, DP)[None, :]
    if LEVEL == 0:
        return tl.load(rows + group[:, None] * DP + channel).to(tl.float32)
    else:
        width: tl.constexpr = 1 << LEVEL
        half: tl.constexpr = width // 2
        sums = pooled_sums(
            rows, pooled, size, block, blocks, DP, BLOCK, TOP, LEVEL - 1, OFFSET
        ) + pooled_sums(
            rows, pooled, size, block, blocks, DP, BLOCK, TOP, LEVEL - 1, OFFSET + half
        )  # fmt: skip
        members = tl.maximum(tl.minimum(size - group, width), 1).to(tl.float32)
        first = blocks * (BLOCK - 2 * (BLOCK >> LEVEL)) + block * (BLOCK >> LEVEL)
        row = (first + (group >> LEVEL)).to(tl.int64)
        mean = (sums / members[:, None]).to(pooled.dtype.element_ty)
        tl.store(pooled + row[:, None] * DP + channel, mean)
        return sums


@triton.jit
def pool_kernel(
    packed, pooled, valid, blocks, DP: tl.constexpr, BLOCK: tl.constexpr, TOP: tl.constexpr
):
    """Pooled rows of levels 1 to TOP of one (block, batch * head)."""
    block = tl.program_id(0)
    batch_head = tl.program_id(1).to(tl.int64)
    rows = packed + (batch_head * blocks + block) * BLOCK * DP
    target = pooled + batch_head * blocks * (BLOCK - BLOCK // 8) * DP
    size = tl.load(valid + block)
    pooled_sums(rows, target, size, block, blocks, DP, BLOCK, TOP, TOP, 0)


@triton.jit
def pack_kernel(
    x, packed, slots, row_order, head_rows, stride_batch, stride_token, stride_head, stride_channel,
    heads, blocks,
    D: tl.constexpr, DP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One (block, batch * head) of x (batch, tokens, heads, D): rows of DP channels, pads zero."""
    block = tl.program_id(0)
    batch_head = tl.program_id(1)
    head = batch_head % heads
    batch = batch_head // heads
    order = tl.load(row_order + tl.load(head_rows + head))
    lane = tl.arange(0, BLOCK)
    token = tl.load(slots + (order.to(tl.int64) * blocks + block) * BLOCK + lane)
    channel = tl.arange(0, DP)
    source = x + batch.to(tl.int64) * stride_batch + head.to(tl.int64) * stride_head
    source += token[:, None].to(tl.int64) * stride_token
    source += channel[None, :].to(tl.int64) * stride_channel
    rows = tl.load(source, mask=(token >= 0)[:, None] & (channel < D)[None, :], other=0.0)
    target = (batch_head.to(tl.int64) * blocks + block) * BLOCK + lane
    tl.store(packed + target[:, None] * DP + channel[None, :], rows)
