"""CPU backend: PyTorch's flash attention, called on views of packed keys where possible."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from ajour.backends.pooling import group_bias, pool_blocks
from ajour.grid import BLOCK
from ajour.lists import LEVELS

if TYPE_CHECKING:
    from ajour.prologue import Prologue
    from ajour.table import BlockTable


KeyRun = tuple[int, int, int]
"""(level, start, stop): consecutive keys of a level, of which a block has 128 / 2**level."""


class Call(NamedTuple):
    """Query slots that one call of flash attention handles: `repeats` groups of `size` slots.

    The keys of a group follow from `runs` or `gather`. Without `gather`, the first group attends to
    the single level-0 run in `runs`, and each further group to that run moved by `size`: a band.

    Args:
        start: first query slot.
        size: query slots of a group.
        repeats: number of groups.
        runs: keys of the first group; empty if it has none.
        gather: int64 (repeats, keys), the keys of each group, as indices into the packed keys of
            all levels.
        bias: (repeats, keys), added to the logits; None for zeros.
    """

    start: int
    size: int
    repeats: int
    runs: tuple[KeyRun, ...]
    gather: torch.Tensor | None = None
    bias: torch.Tensor | None = None


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    table: BlockTable,
    scale: float,
    prologue: Prologue,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention through a block table on the CPU; arguments and result: see `reference.attend`."""
    q, k = prologue.apply(q, k)
    batch, tokens, heads, dim = q.shape
    inputs = [x.reshape(-1, dim) for x in (q, k, v)]
    total = batch * tokens * heads
    # Empty slots write to an extra row.
    out = q.new_empty(total + 1, dim)
    lse = torch.empty(total + 1, dtype=torch.float32, device=q.device)
    first = torch.arange(batch, device=q.device)[:, None] * tokens
    for row in table.head_rows.unique().tolist():
        slots = table.slots[int(table.row_order[row])].long()
        row_heads = (table.head_rows == row).nonzero()[:, None]
        places = ((first + slots) * heads + row_heads).masked_fill_(slots < 0, total).flatten(0, 1)
        calls, used = _row_calls(table, row)
        source = places.clamp(max=total - 1)
        query = inputs[0].index_select(0, source.flatten()).view(*places.shape, dim)
        key, value = (_pack(x, source, table, used) for x in inputs[1:])
        _attend_row(query, key, value, places, out, lse, calls, scale)
    return out[:-1].view(q.shape), lse[:-1].view(q.shape[:3]).transpose(1, 2).contiguous()


def _attend_row(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    places: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    calls: list[Call],
    scale: float,
) -> None:
    """Attention of a pattern row's heads, written into `out` and `lse`.

    Queries are (heads, slots, head_dim), keys and values come from `_pack`. `places` (heads, slots)
    says where in `out` (places, head_dim) and `lse` (places,) the result of a query belongs.
    """
    for start, size, repeats, runs, gather, bias in calls:
        target = places[:, start : start + size * repeats].t().flatten()
        if not runs:
            out.index_fill_(0, target, 0)
            lse.index_fill_(0, target, -math.inf)
            continue
        if gather is None:
            _, lo, hi = runs[0]
            key, value = (_windows(x, lo, hi - lo, repeats, size) for x in (k, v))
        else:
            key, value = (
                x.index_select(1, gather.flatten()).unflatten(1, gather.shape).transpose(0, 1)
                for x in (k, v)
            )
        result, sums = torch._scaled_dot_product_flash_attention_for_cpu(
            _windows(q, start, size, repeats, size),
            key,
            value,
            attn_mask=None
            if bias is None
            else bias.to(q.dtype)[:, None, None].expand(-1, 1, size, -1),
            scale=scale,
        )
        out.index_copy_(0, target, result.transpose(1, 2).flatten(0, 2))
        lse.index_copy_(0, target, sums.transpose(1, 2).flatten().to(lse.dtype))


def _pack(
    x: torch.Tensor, source: torch.Tensor, table: BlockTable, used: list[int]
) -> torch.Tensor:
    """Keys or values of a pattern row's heads in block layout, followed by their pooled levels.

    From (places, head_dim), and the place of each slot's token, (heads, slots), to (heads, slots +
    pooled rows, head_dim), empty slots zero. `used` are the levels to lay out, 0 first.
    """
    slots, blocks = source.shape[1], table.grid.blocks
    sizes = [blocks * (BLOCK >> level) for level in used]
    packed = x.new_empty(len(source), sum(sizes), x.shape[1])
    for head, rows in zip(packed, source, strict=True):
        torch.index_select(x, 0, rows, out=head[:slots])
    packed[:, table.empty_slots] = 0
    whole = packed[:, :slots].unflatten(1, (-1, BLOCK))
    for level, part in zip(used[1:], packed.split(sizes, 1)[1:], strict=True):
        part.copy_(pool_blocks(whole, table.valid, level).flatten(1, 2))
    return packed


def _row_calls(table: BlockTable, row: int) -> tuple[list[Call], list[int]]:
    """The calls of a row and the levels that they use, 0 first; derived once per table."""
    kept: dict[int, tuple[list[Call], list[int]]] = table.derived.setdefault("cpu", {})
    if row not in kept:
        offsets, ids, valid = table.offsets[row].tolist(), table.ids, table.valid.tolist()
        blocks = [
            tuple(
                run
                for level in range(LEVELS)
                for run in _runs(sorted(ids[at[level] : at[level + 1]].tolist()), level, valid)
            )
            for at in offsets
        ]
        used = sorted({0} | {level for runs in blocks for level, _, _ in runs})
        sizes = [table.grid.blocks * (BLOCK >> level) for level in used]
        first = {level: sum(sizes[:i]) for i, level in enumerate(used)}
        biases = {level: group_bias(table.valid, level).flatten() for level in used}
        calls = []
        for call in _calls(blocks):
            if len(call.runs) > 1 or (call.runs and call.runs[0][0] > 0):
                spans = [
                    torch.arange(lo, hi, device=ids.device) + first[level]
                    for level, lo, hi in call.runs
                ]
                bias = torch.cat([biases[level][lo:hi] for level, lo, hi in call.runs])
                call = call._replace(
                    gather=torch.cat(spans)[None], bias=bias[None] if bias.any() else None
                )
            calls.append(call)
        kept[row] = _side_by_side(calls), used
    return kept[row]


def _runs(blocks: list[int], level: int, valid: list[int]) -> list[KeyRun]:
    """The fewest runs of keys that cover ascending key blocks; a partial block ends its run."""
    runs: list[KeyRun] = []
    for block in blocks:
        start = block * (BLOCK >> level)
        stop = start - (-valid[block] >> level)
        if runs and runs[-1][2] == start:
            start = runs.pop()[1]
        runs.append((level, start, stop))
    return runs


def _calls(blocks: list[tuple[KeyRun, ...]]) -> list[Call]:
    """Join neighbouring query blocks with equal runs, then neighbouring groups that form a band."""
    groups: list[Call] = []
    for block, runs in enumerate(blocks):
        if groups and groups[-1].runs == runs:
            groups[-1] = groups[-1]._replace(size=groups[-1].size + BLOCK)
        else:
            groups.append(Call(block * BLOCK, BLOCK, 1, runs))
    calls: list[Call] = []
    for group in groups:
        if calls and _band(group) is not None and _band(group) == _band(calls[-1]):
            calls[-1] = calls[-1]._replace(repeats=calls[-1].repeats + 1)
        else:
            calls.append(group)
    return calls


def _side_by_side(calls: list[Call]) -> list[Call]:
    """Join neighbouring calls with equally many gathered keys, up to a group for each thread.

    Larger calls would push the gathered keys out of the cache.
    """
    joined: list[Call] = []
    for call in calls:
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.repeats < torch.get_num_threads()
            and last.gather is not None
            and call.gather is not None
            and last.size == call.size
            and last.gather.shape[1] == call.gather.shape[1]
            and (last.bias is None) == (call.bias is None)
        ):
            biases = [each.bias for each in (last, call) if each.bias is not None]
            joined[-1] = last._replace(
                repeats=last.repeats + 1,
                gather=torch.cat([last.gather, call.gather]),
                bias=torch.cat(biases) if biases else None,
            )
        else:
            joined.append(call)
    return joined


def _band(call: Call) -> tuple[int, int, int] | None:
    """Query slots per group, and the run relative to them; None unless it is one level-0 run."""
    if len(call.runs) != 1 or call.runs[0][0] > 0:
        return None
    _, start, stop = call.runs[0]
    return call.size, start - call.start, stop - call.start


def _windows(x: torch.Tensor, start: int, size: int, repeats: int, step: int) -> torch.Tensor:
    """View (repeats, heads, size, head_dim) of (heads, slots, head_dim): windows `step` apart."""
    rows = x[:, start : start + size + step * (repeats - 1)]
    return rows.unfold(1, size, step).permute(1, 0, 3, 2)
