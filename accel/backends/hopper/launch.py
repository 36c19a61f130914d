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

REGISTERS = {"CONSUMER_REGISTERS": 232, "PRODUCER_REGISTERS": 40}
"""What a thread of a consumer takes and a thread of the producer leaves of those at entry."""

OPTIONS = {"num_warps": 4, "maxnreg": 168, "enable_fp_fusion": True}
"""How the kernel is compiled."""


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
    items = heads * blocks
    total = batch * items
    processors = torch.cuda.get_device_properties(q.device).multi_processor_count
    attend_kernel[(min(total, processors),)](
        _descriptor(q, BLOCK // 2, head_dim),
        _descriptor(k, BLOCK, head_dim),
        _descriptor(v, BLOCK, head_dim),
        *pooled,
        out,
        lse,
        table.slots,
        table.work,
        table.ids,
        scale * math.log2(math.e),
        items,
        total,
        tokens,
        heads,
        blocks,
        **constants(head_dim, levels),
        **OPTIONS,
    )
    return out, lse


def constants(head_dim: int, levels: int) -> dict[str, int]:
    """The kernel's compile-time arguments."""
    return {"D": head_dim, "STAGES": STAGES[head_dim], "LEVELS": levels, **REGISTERS}


def shared_layout() -> gl.NVMMASharedLayout:
    """Rows of 64 channels in shared memory, swizzled as the matrix units read them."""
    return gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)


def _descriptor(x: torch.Tensor, rows: int, channels: int) -> TensorDescriptor:
    return TensorDescriptor.from_tensor(x, [rows, channels], shared_layout())
