"""Launching the Hopper kernel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from ajour.backends.hopper.kernel import attend_kernel
from ajour.backends.packing import POOLED_ROWS, pack
from ajour.backends.prologue import prepare
from ajour.grid import BLOCK

if TYPE_CHECKING:
    from ajour.prologue import Prologue
    from ajour.table import BlockTable

STAGES = {64: 4, 128: 2}
"""Key and value buffers by head_dim: what fits into shared memory beside the queries."""

WARPS = 4
REGISTERS = 168
"""At entry; the consumers then take 240 and leave 24 to the producer."""


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    table: BlockTable,
    scale: float,
    prologue: Prologue,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention through a block table on a Hopper GPU. Arguments as `reference.attend`."""
    levels = 4 if table.highest_level else 1
    packed_q, _ = prepare(q, table, prologue.q_norm, prologue.rope, 1)
    packed_k, pooled_k = prepare(k, table, prologue.k_norm, prologue.rope, levels)
    packed_v, pooled_v = pack(v, table, levels)
    return attend_packed(
        packed_q, packed_k, packed_v, pooled_k, pooled_v, table, scale, q.shape, levels
    )


def attend_packed(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pooled_k: torch.Tensor,
    pooled_v: torch.Tensor,
    table: BlockTable,
    scale: float,
    shape: torch.Size,
    levels: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The kernel alone, on packed tensors; arguments as of the Triton backend's.

    `levels` is 1, or 4 if any pooled level is used.
    """
    batch, tokens, heads, head_dim = shape
    blocks = table.grid.blocks
    out = q.new_empty(shape)
    lse = torch.empty(batch, heads, tokens, dtype=torch.float32, device=q.device)
    pooled: list[Any] = [None] * 6
    if levels > 1:
        sources = [x.view(batch * heads * blocks * POOLED_ROWS, -1) for x in (pooled_k, pooled_v)]
        pooled = [_descriptor(x, BLOCK >> h, 64) for h in (1, 2, 3) for x in sources]
    attend_kernel[(blocks, batch * heads)](
        _descriptor(q, BLOCK // 2, head_dim),
        _descriptor(k, BLOCK, head_dim),
        _descriptor(v, BLOCK, head_dim),
        *pooled,
        out,
        lse,
        table.slots,
        table.valid,
        table.offsets,
        table.ids,
        table.row_order,
        table.head_rows,
        scale * math.log2(math.e),
        tokens,
        heads,
        blocks,
        table.partial_blocks,
        D=head_dim,
        STAGES=STAGES[head_dim],
        LEVELS=levels,
        num_warps=WARPS,
        maxnreg=REGISTERS,
        enable_fp_fusion=True,
    )
    return out, lse


def shared_layout() -> gl.NVMMASharedLayout:
    """Rows of 64 channels in shared memory, swizzled as the matrix units read them."""
    return gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)


def _descriptor(x: torch.Tensor, rows: int, channels: int) -> TensorDescriptor:
    return TensorDescriptor.from_tensor(x, [rows, channels], shared_layout())
