"""The operator: attention through a block table, whatever the backend."""

import math

import torch

from ajour.dispatch import run
from ajour.grid import TokenGrid
from ajour.prologue import Prologue
from ajour.table import BlockTable

NO_PROLOGUE = Prologue()

TAGS = [torch.Tag.cudagraph_unsafe] if hasattr(torch.Tag, "cudagraph_unsafe") else None
"""CUDA graphs of torch.compile leave the operator out: their memory cannot hold what is kept."""


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    table: BlockTable,
    *,
    prologue: Prologue | None = None,
    scale: float | None = None,
    backend: str | None = None,
    return_lse: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Block-sparse multi-level self-attention.

    Args:
        q: queries, (batch, tokens, heads, head_dim), in the model's token order.
        k: keys, same shape.
        v: values, same shape.
        table: which key blocks each query block attends to, for each head.
        prologue: norms and rotary embedding to apply to q and k first; GPU backends do so in the
            pass that packs them. Without it q and k are taken as they are.
        scale: factor on the logits; 1 / sqrt(head_dim) by default.
        backend: one of `ajour.BACKENDS`: it is used, or an error is raised. None chooses the
            fastest backend that can run here and logs the choice once.
        return_lse: also return the log-sum-exp of the logits.

    Returns:
        The output, shaped and typed like q; with `return_lse` also the natural log-sum-exp,
        float32 (batch, heads, tokens). A query without keys gives 0 and -inf. A batch or heads of
        size 0 give results of size 0.

    Raises:
        ValueError: if shapes disagree with each other, with the table or with the prologue, the
            scale is not positive and finite, or the backend is unknown.
        TypeError: if dtypes are not supported.
        RuntimeError: if an input requires grad, or an explicit backend cannot run here.
    """
    if scale is None:
        scale = 1.0 / math.sqrt(max(1, q.shape[-1] if q.ndim else 1))
    prologue = prologue or NO_PROLOGUE
    if torch.compiler.is_compiling():
        grid = table.grid
        extents = [grid.frames, grid.height, grid.width, grid.before, grid.after]
        tensors = [
            table.slots,
            table.valid,
            table.offsets,
            table.ids,
            table.row_order,
            table.head_rows,
            table.places,
            table.empty_slots,
        ]
        parts = prologue.parts()
        out, lse = attend(q, k, v, tensors, extents, table.highest_level, *parts, scale, backend)
    else:
        out, lse = run(q, k, v, table, prologue, scale, backend)
    return (out, lse) if return_lse else out


@torch.library.custom_op("ajour::attend", mutates_args=(), tags=TAGS)
def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    table: list[torch.Tensor],
    grid: list[int],
    highest_level: int,
    tensors: list[torch.Tensor | None],
    places: list[int],
    eps: list[float],
    scale: float,
    backend: str | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`attention` for torch.compile, with the table and prologue as their parts."""
    prologue = Prologue.of(tensors, places, eps)
    block_table = BlockTable(TokenGrid(*grid), highest_level, *table)
    out, lse = run(q, k, v, block_table, prologue, scale, backend)
    return out.contiguous(), lse


@attend.register_fake
def _(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *args: object
) -> tuple[torch.Tensor, torch.Tensor]:
    batch, tokens, heads, _ = q.shape
    lse = q.new_empty((batch, heads, tokens), dtype=torch.float32)
    return q.new_empty(q.shape), lse
