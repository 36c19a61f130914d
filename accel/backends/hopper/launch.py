"""Launching the Hopper kernel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from ajour.backends.hopper.kernel import attend_kernel
from ajour.backends.hopper.work import work_items
from ajour.backends.packed import Packed, pack_inputs
from ajour.backends.packing import POOLED_ROWS
from ajour.grid import BLOCK
from ajour.lists import LEVELS

if TYPE_CHECKING:
    from ajour.prologue import Prologue
    from ajour.table import BlockTable

STAGES = {64: 4, 128: 2}
"""Key and value buffers by head_dim: as many as fit into shared memory with the queries."""

REGISTERS = {"CONSUMER_REGISTERS": 232, "PRODUCER_REGISTERS": 40}
"""Registers of a thread: consumers take more than at launch, the producer returns some."""

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
    """Attention through a block table on a Hopper GPU; see `reference.attend`."""
    levels = LEVELS if table.highest_level else 1
    return attend_packed(pack_inputs(q, k, v, table, prologue, levels), table, scale)


def attend_packed(
    packed: Packed, table: BlockTable, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The attention kernel alone.

    Args:
        packed: the inputs, pooled to no level or to all.
        table: the block table.
        scale: factor on the logits.
    """
    q, k, v, pooled_k, pooled_v, (batch, tokens, heads, head_dim), levels = packed
    blocks = table.grid.blocks
    out, lse = packed.new_results()
    pooled: list[Any] = [None] * 6
    if levels > 1:
        sources = [x.view(batch * heads * blocks * POOLED_ROWS, -1) for x in (pooled_k, pooled_v)]
        pooled = [_descriptor(x, BLOCK >> h, 64) for h in (1, 2, 3) for x in sources]
    items = heads * blocks
    total = batch * items
    processors = torch.cuda.get_device_properties(q.device).multi_processor_count
    attend_kernel[(min(total, processors),)](
        _descriptor(q, BLOCK // 2, head_dim), _descriptor(k, BLOCK, head_dim),
        _descriptor(v, BLOCK, head_dim), *pooled, out, lse, table.slots, work_items(table),
        table.ids, scale * math.log2(math.e), items, total, tokens, heads, blocks,
        **constants(head_dim, levels), **OPTIONS,
    )  # fmt: skip
    return out, lse


def constants(head_dim: int, levels: int) -> dict[str, int]:
    """The kernel's compile-time arguments."""
    return {"D": head_dim, "STAGES": STAGES[head_dim], "LEVELS": levels, **REGISTERS}


def shared_layout() -> gl.NVMMASharedLayout:
    """Rows of 64 channels in shared memory, swizzled for the matrix units."""
    return gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)


def _descriptor(x: torch.Tensor, rows: int, channels: int) -> TensorDescriptor:
    return TensorDescriptor.from_tensor(x, [rows, channels], shared_layout())
