"""The prologue on a GPU: norm, rotation, reordering and padding of queries or keys in one pass.

A program reads tokens as the projection wrote them, all heads where these are normalised together,
else a group of heads that leaves no lane idle. It scatters each head's row to its place in that
head's order (a row is 64 to 512 contiguous bytes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from ajour.backends.packing import pack, padded_channels, pool
from ajour.grid import BLOCK

if TYPE_CHECKING:
    import torch

    from ajour.prologue import Norm, Rope
    from ajour.table import BlockTable

ELEMENTS = 8192
"""Elements of a program's tile; 32 per thread of 8 warps."""


def prepare(
    x: torch.Tensor, table: BlockTable, norm: Norm | None, rope: Rope | None, levels: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalise, rotate and pack (batch, tokens, heads, head_dim) in one pass.

    Args:
        x: projected queries or keys; channels and heads contiguous, any token stride.
        table: the block table.
        norm: their norm, or None.
        rope: their rotation, or None.
        levels: one more than the highest level to pool to.

    Without norm and rotation there is nothing to fuse: `packing.pack` does it.

    Returns:
        Packed rows and pooled rows, as `packing.pack` gives them.
    """
    if norm is None and rope is None:
        return pack(x, table, levels)
    batch, tokens, heads, head_dim = x.shape
    if x.stride(3) != 1 or x.stride(2) != head_dim:
        x = x.contiguous()
    blocks, channels = table.grid.blocks, padded_channels(head_dim)
    packed = x.new_empty(batch * heads * blocks * BLOCK, channels)
    if len(table.empty_slots):
        packed.view(batch * heads, blocks * BLOCK, channels).index_fill_(1, table.empty_slots, 0)
    across = norm is not None and norm.second is None and len(norm.weight) == heads * head_dim
    extents = tile(heads, channels, across)
    weight = x if norm is None else norm.weight.contiguous()
    second = None if norm is None or norm.second is None else norm.second.contiguous()
    cosines = x if rope is None else rope.cosines.contiguous()
    sines = x if rope is None else rope.sines.contiguous()
    prologue_kernel[(triton.cdiv(tokens, extents["T"]) * extents["GROUPS"], batch)](
        x,
        weight,
        second,
        cosines,
        sines,
        packed,
        table.places,
        table.row_order,
        table.head_rows,
        x.stride(0),
        x.stride(1),
        tokens,
        heads,
        blocks,
        0 if rope is None else rope.start,
        0 if rope is None else rope.cosines.shape[0],
        0 if norm is None else norm.split,
        0.0 if norm is None else norm.eps,
        D=head_dim,
        DP=channels,
        BLOCK=BLOCK,
        NORM="" if norm is None else "all heads" if across else "each head",
        ROPE=rope is not None,
        **extents,
        num_warps=8,
        enable_fp_fusion=True,
    )
    return packed, pool(packed, table, levels)


def tile(heads: int, channels: int, across: bool) -> dict[str, int]:
    """Extents of a program's tile, as the kernel's compile-time arguments.

    Args:
        heads: all heads.
        channels: padded head_dim.
        across: whether all heads are normalised together, and so belong to one tile.

    Returns:
        HP heads (a power of two), GROUPS of which are all heads, and T tokens.
    """
    group = min(heads & -heads, max(1, ELEMENTS // channels))
    if across:
        group = int(triton.next_power_of_2(heads))
    rows = max(1, ELEMENTS // (group * channels))
    return {"HP": group, "GROUPS": triton.cdiv(heads, group), "T": rows}


# The text's length changes from prompt to prompt.
@triton.jit(do_not_specialize=["split"])
def prologue_kernel(
    x,
    weight,
    second,
    cosines,
    sines,
    packed,
    places,
    row_order,
    head_rows,
    stride_batch,
    stride_token,
    seq_len,
    heads,
    blocks,
    rope_start,
    rope_length,
    split,
    eps,
    D: tl.constexpr,
    DP: tl.constexpr,
    HP: tl.constexpr,
    GROUPS: tl.constexpr,
    T: tl.constexpr,
    BLOCK: tl.constexpr,
    NORM: tl.constexpr,
    ROPE: tl.constexpr,
):
    """T tokens of one batch entry, one of GROUPS of heads: (T, HP, DP), channels padded."""
    batch = tl.program_id(1)
    if GROUPS == 1:
        token = tl.program_id(0) * T + tl.arange(0, T)
        head = tl.arange(0, HP)
    else:
        token = tl.program_id(0) // GROUPS * T + tl.arange(0, T)
        head = tl.program_id(0) % GROUPS * HP + tl.arange(0, HP)
    channel = tl.arange(0, DP)
    inside = (head < heads)[:, None] & (channel < D)[None, :]
    here = (token < seq_len)[:, None, None] & inside[None, :, :]
    within = head[:, None] * D + channel[None, :]
    source = (
        x + batch.to(tl.int64) * stride_batch + token.to(tl.int64)[:, None, None] * stride_token
    )
    values = tl.load(source + within[None, :, :], mask=here, other=0.0).to(tl.float32)
    if NORM == "all heads":
        square = tl.sum(tl.sum(values * values, axis=2), axis=1) / (heads * D)
        values = values * tl.rsqrt(square + eps)[:, None, None]
        gain = tl.load(weight + within, mask=inside, other=0.0).to(tl.float32)
        values = values * gain[None, :, :]
    if NORM == "each head":
        square = tl.sum(values * values, axis=2) / D
        values = values * tl.rsqrt(square + eps)[:, :, None]
        gain = tl.load(weight + channel, mask=channel < D, other=0.0).to(tl.float32)
        if second is None:
            values = values * gain[None, None, :]
        else:
            other_gain = tl.load(second + channel, mask=channel < D, other=0.0).to(tl.float32)
            gains = tl.where((token < split)[:, None], gain[None, :], other_gain[None, :])
            values = values * gains[:, None, :]
    if ROPE:
        pair = tl.arange(0, DP // 2)
        place = token - rope_start
        turned = (place >= 0) & (place < rope_length)
        mask = turned[:, None] & (2 * pair < D)[None, :]
        angle = place.to(tl.int64)[:, None] * D + 2 * pair[None, :]
        cos = tl.load(cosines + angle, mask=mask, other=1.0).to(tl.float32)[:, None, :]
        sin = tl.load(sines + angle + 1, mask=mask, other=0.0).to(tl.float32)[:, None, :]
        even, odd = tl.split(tl.reshape(values, (T, HP, DP // 2, 2)))
        values = tl.join(even * cos - odd * sin, even * sin + odd * cos)
        values = tl.reshape(values, (T, HP, DP))
    known = (token < seq_len)[:, None] & (head < heads)[None, :]
    order = tl.load(row_order + tl.load(head_rows + head, mask=head < heads, other=0))
    slot = tl.load(
        places + order.to(tl.int64)[None, :] * seq_len + token[:, None], mask=known, other=0
    )
    row = (batch.to(tl.int64) * heads + head)[None, :] * blocks * BLOCK + slot
    tl.store(
        packed + row[:, :, None] * DP + channel[None, None, :],
        values.to(packed.dtype.element_ty),
        mask=known[:, :, None],
    )
