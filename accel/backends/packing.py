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

    Returns:
        Rows (batch * heads * blocks * 128, channels) and pooled rows (batch * heads,
        blocks * 112, channels), channels being head_dim padded to a power of two; without
        pooled levels the second is the first again.
    """
    batch, _, heads, head_dim = x.shape
    blocks, channels = table.grid.blocks, padded_channels(head_dim)
    packed = x.new_empty(batch * heads * blocks * BLOCK_SIZE, channels)
    pooled = x.new_empty(batch * heads, blocks * POOLED_ROWS, channels) if levels > 1 else packed
    pack_kernel[(blocks, batch * heads)](
        x,
        packed,
        pooled,
        table.slots,
        table.valid,
        table.row_order,
        table.head_rows,
        *x.stride(),
        heads,
        blocks,
        D=head_dim,
        DP=channels,
        BLOCK=BLOCK_SIZE,
        LEVELS=levels,
        num_warps=4,
        enable_fp_fusion=True,
    )
    return packed, pooled


@triton.jit
def pool(x, size, packed, first, block, DP: tl.constexpr, BLOCK: tl.constexpr, LEVEL: tl.constexpr):
    """Store the mean of the valid ones of 2**LEVEL consecutive rows of a block."""
    width: tl.constexpr = 1 << LEVEL
    group: tl.constexpr = BLOCK >> LEVEL
    lane = tl.arange(0, group)
    members = tl.maximum(tl.minimum(size - lane * width, width), 1).to(tl.float32)
    mean = tl.sum(tl.reshape(x.to(tl.float32), (group, width, DP)), axis=1) / members[:, None]
    rows = first + block * group + lane
    channel = tl.arange(0, DP)
    tl.store(
        packed + rows[:, None].to(tl.int64) * DP + channel[None, :],
        mean.to(packed.dtype.element_ty),
    )


@triton.jit
def pack_kernel(
    x,
    packed,
    pooled,
    slots,
    valid,
    row_order,
    head_rows,
    stride_batch,
    stride_token,
    stride_head,
    stride_channel,
    heads,
    blocks,
    D: tl.constexpr,
    DP: tl.constexpr,
    BLOCK: tl.constexpr,
    LEVELS: tl.constexpr,
):
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
    if LEVELS > 1:
        size = tl.load(valid + block)
        base = batch_head.to(tl.int64) * blocks * (BLOCK - BLOCK // 8)
        for level in tl.static_range(1, LEVELS):
            first = base + blocks * (BLOCK - 2 * (BLOCK >> level))
            pool(rows, size, pooled, first, block, DP, BLOCK, level)
