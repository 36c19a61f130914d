"""What the GPU backends share around their kernels: packing inputs and allocating results."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from ajour.backends.packing import pack
from ajour.backends.prologue import prepare

if TYPE_CHECKING:
    from ajour.prologue import Prologue
    from ajour.table import BlockTable


class Packed(NamedTuple):
    """Queries, keys and values as the GPU kernels read them.

    Args:
        q: packed rows, see `packing.pack`.
        k: packed rows.
        v: packed rows.
        pooled_k: pooled rows of levels 1 to `levels` - 1, see `packing.pool`.
        pooled_v: pooled rows.
        shape: (batch, tokens, heads, head_dim) of the inputs.
        levels: number of levels, the exact level included: 1 pools nothing.
    """

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    pooled_k: torch.Tensor
    pooled_v: torch.Tensor
    shape: torch.Size
    levels: int

    def new_results(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Memory for the output, typed like q, and the LSE, float32 (batch, heads, tokens)."""
        batch, tokens, heads, _ = self.shape
        lse = torch.empty(batch, heads, tokens, dtype=torch.float32, device=self.q.device)
        return self.q.new_empty(self.shape), lse


def pack_inputs(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    table: BlockTable,
    prologue: Prologue,
    levels: int,
) -> Packed:
    """Apply the prologue, gather tokens into the block layout, pool keys and values.

    q, k and v are (batch, tokens, heads, head_dim); `levels` counts the exact level too.
    """
    packed_q, _ = prepare(q, table, prologue.q_norm, prologue.rope, 1)
    packed_k, pooled_k = prepare(k, table, prologue.k_norm, prologue.rope, levels)
    packed_v, pooled_v = pack(v, table, levels)
    return Packed(packed_q, packed_k, packed_v, pooled_k, pooled_v, q.shape, levels)
