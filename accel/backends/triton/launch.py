"""Launching the Triton kernel: tile configuration and attention."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ajour.backends.packed import Packed, pack_inputs
from ajour.backends.triton.kernel import attend_kernel
from ajour.grid import BLOCK

if TYPE_CHECKING:
    from ajour.prologue import Prologue
    from ajour.table import BlockTable


@dataclass(frozen=True)
class Config:
    """How the attention kernel is compiled.

    Args:
        tile: keys computed at a time, a divisor of 128.
        warps: warps of a program.
        stages: software-pipelining depth of the main loop.
        descriptors: whether keys and values come through tensor descriptors (TMA).
    """

    tile: int
    warps: int
    stages: int
    descriptors: bool


def choose_config(capability: int, itemsize: int, channels: int) -> Config:
    """The kernel configuration for a GPU.

    Args:
        capability: compute capability times ten, for example 90; 0 in the interpreter and on AMD.
        itemsize: bytes per element of q, k and v.
        channels: padded head_dim, a power of two.
    """
    large = capability in (80, 90, 100, 103)
    descriptors = capability >= 90
    if itemsize == 4:
        return Config(tile=32 if channels <= 128 else 16, warps=8, stages=1, descriptors=False)
    if channels > 128:
        return Config(64 if large else 32, warps=8, stages=2 if large else 1, descriptors=False)
    if large and descriptors:
        return Config(tile=128, warps=8, stages=5, descriptors=True)
    return Config(tile=64, warps=8, stages=3 if large else 2, descriptors=descriptors)


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    table: BlockTable,
    scale: float,
    prologue: Prologue,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention through a block table on a GPU; arguments and result: see `reference.attend`."""
    packed = pack_inputs(q, k, v, table, prologue, levels=table.highest_level + 1)
    return attend_packed(packed, table, scale)


def attend_packed(
    packed: Packed, table: BlockTable, scale: float, config: Config | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The attention kernel alone.

    Args:
        packed: the inputs, pooled at least to the highest level of the table.
        table: the block table.
        scale: factor on the logits.
        config: how to compile; chosen for the GPU by default.
    """
    q, k, v, pooled_k, pooled_v, (batch, tokens, heads, head_dim), levels = packed
    blocks, channels = table.grid.blocks, q.shape[1]
    config = config or choose_config(capability_of(q.device), q.element_size(), channels)
    out, lse = packed.new_results()
    k_source, v_source = k, v
    if config.descriptors:
        from triton.tools.tensor_descriptor import TensorDescriptor

        k_source, v_source = (
            TensorDescriptor.from_tensor(x, [config.tile, channels]) for x in (k, v)
        )
    attend_kernel[(blocks, batch * heads)](
        q, k, v, k_source, v_source, pooled_k, pooled_v, out, lse, table.slots, table.valid,
        table.offsets, table.ids, table.row_order, table.head_rows, scale * math.log2(math.e),
        tokens, heads, blocks, table.partial_blocks,
        D=head_dim, DP=channels, BLOCK=BLOCK, TILE=config.tile, LEVELS=levels,
        DESCRIPTORS=config.descriptors, PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
        STAGES=config.stages, num_warps=config.warps, num_stages=config.stages,
        enable_fp_fusion=True,
    )  # fmt: skip
    return out, lse


def capability_of(device: torch.device) -> int:
    """Compute capability times ten; 0 in the interpreter and on AMD, which numbers differently."""
    if os.environ.get("TRITON_INTERPRET") == "1" or torch.version.hip is not None:
        return 0
    major, minor = torch.cuda.get_device_capability(device)
    return major * 10 + minor
