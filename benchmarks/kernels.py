"""Attention kernels on one GPU: block tables against dense SDPA and FlexAttention, in one run.

Every arm is checked against the float64 oracle on sampled query blocks before it is timed. TFLOP/s
count only selected 128 x 128 tiles; eta is the ratio to the TFLOP/s of dense SDPA. The fastest of
our backends is also timed with packing, which a pipeline fuses with norms and rotary embedding.

    python -m benchmarks.kernels --out benchmarks/results/kernels-h200.json
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from triton.testing import do_bench

from ajour import (
    BLOCK,
    BlockTable,
    Diagonal,
    Full,
    MultiDiagonal,
    Prologue,
    Pyramid,
    Stripe,
    TokenGrid,
    Window,
    attention,
    lower,
)
from ajour.backends import backend_reason
from ajour.backends.packed import pack_inputs
from ajour.backends.reference import attend as reference
from ajour.lists import LEVELS
from benchmarks.record import save

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SHAPES = {
    (1, 12, 32768, 128): TokenGrid(32, 32, 32),
    (1, 12, 45056, 64): TokenGrid(11, 64, 64),
    (1, 6, 119040, 128): TokenGrid(31, 48, 80),
}
"""(batch, heads, tokens, head_dim) and a grid of so many tokens, without partial blocks."""

BACKENDS = ("hopper", "triton")
KINDS = ("full", "random 25%", "window 25%", "random 10%", "pyramid 25%", "mixed heads")
SAMPLED_BLOCKS = 4

MIXED = (
    Full(), Window(2, 6, 6), Diagonal(1), MultiDiagonal(2, 2), Stripe(8),
    Pyramid(4, 4, 4, growth=2.0),
)  # fmt: skip
"""Patterns in three orders, with densities from 0.05 to 1."""


def make_table(grid: TokenGrid, heads: int, kind: str, seed: int = 0) -> BlockTable:
    """A table with lists of one kind; random lists differ between heads."""
    blocks = grid.blocks
    if kind == "mixed heads":
        return lower([MIXED[head % len(MIXED)] for head in range(heads)], grid)
    if kind == "full":
        maps = [np.zeros((blocks, blocks), dtype=np.int8)]
    elif kind.startswith("window"):
        distance = np.abs(np.arange(blocks)[:, None] - np.arange(blocks)[None, :])
        distance = np.minimum(distance, blocks - distance)
        maps = [np.where(distance <= blocks // 8, 0, -1).astype(np.int8)]
    else:
        # 15% exact, 10% at 2x, 20% at 4x: the tiles of 25% exact.
        shares = {"pyramid": (0.15, 0.25, 0.45)}.get(kind.split()[0])
        if shares is None:
            shares = (int(kind.split()[1][:-1]) / 100,)
        maps = list(random_levels(heads, blocks, shares, seed))
    rows = [i % len(maps) for i in range(heads)]
    return BlockTable.from_levels(grid, maps, ["raster"] * len(maps), rows)


def random_levels(
    heads: int, blocks: int, shares: tuple[float, ...], seed: int
) -> NDArray[np.int8]:
    """Level maps (heads, N, N): shares[h] of each query block's keys have a level of at most h."""
    ranks = np.random.default_rng(seed).random((heads, blocks, blocks)).argsort(-1).argsort(-1)
    levels = np.full(ranks.shape, -1, dtype=np.int8)
    for level in reversed(range(len(shares))):
        levels[ranks < round(shares[level] * blocks)] = level
    return levels


def sampled(table: BlockTable) -> BlockTable:
    """The same table with empty lists for all but a few query blocks."""
    offsets = torch.zeros_like(table.offsets)
    chosen = torch.linspace(0, table.grid.blocks - 1, SAMPLED_BLOCKS).long()
    offsets[:, chosen] = table.offsets[:, chosen]
    return replace(table, offsets=offsets)


def flex_mask(table: BlockTable) -> BlockMask:
    """The same lists for FlexAttention; the table must have no partial blocks."""
    rows = table.head_rows.long()
    first, stop = table.offsets[rows, :, 0], table.offsets[rows, :, 1]
    count = (stop - first)[None].contiguous()
    place = torch.arange(table.grid.blocks, device=count.device)
    entry = (first[..., None] + place).clamp(max=len(table.ids) - 1)
    ids = torch.where(place < count[0, ..., None], table.ids[entry.long()], 0)[None].contiguous()
    tokens = (table.grid.seq_len,) * 2
    none = torch.zeros_like(count)
    return BlockMask.from_kv_blocks(
        none, torch.zeros_like(ids), count, ids, BLOCK_SIZE=BLOCK, seq_lengths=tokens
    )


def measure(shape: tuple[int, int, int, int], dtype: torch.dtype) -> list[dict[str, Any]]:
    """All arms at one shape."""
    batch, heads, tokens, head_dim = shape
    grid = SHAPES[shape]
    torch.manual_seed(0)
    q, k, v = (
        torch.randn(batch, tokens, heads, head_dim, device="cuda", dtype=dtype) for _ in range(3)
    )
    dense_q, dense_k, dense_v = (x.transpose(1, 2).contiguous() for x in (q, k, v))
    scale, flops = head_dim**-0.5, 4 * batch * heads * tokens**2 * head_dim
    flex = torch.compile(flex_attention, dynamic=False)
    rows: list[dict[str, Any]] = []
    for kind in KINDS:
        table = make_table(grid, heads, kind).to("cuda")
        density = table.density()
        exact, eager = (
            reference(q, k, v, sampled(table), scale, compute_dtype=t)[0].double()
            for t in (torch.float64, dtype)
        )
        kept = exact.abs().sum(-1, keepdim=True) > 0
        eager_error = float((eager - exact).norm() / exact.norm())
        levels = LEVELS if table.highest_level else 1
        packed = pack_inputs(q, k, v, table, Prologue(), levels)
        arms: dict[str, Callable[[], torch.Tensor]] = {}
        if kind == "full":
            arms["sdpa"] = lambda: F.scaled_dot_product_attention(
                dense_q, dense_k, dense_v
            ).transpose(1, 2)
        runnable = [
            name for name in BACKENDS if backend_reason(name, q.device, dtype, head_dim) is None
        ]
        for name in runnable:
            call = import_module(f"ajour.backends.{name}.launch").attend_packed
            arms[f"{name} kernel"] = lambda f=call, p=packed, t=table: f(p, t, scale)[0]
        best = runnable[0]
        arms[f"{best} with packing"] = lambda t=table, b=best: attention(q, k, v, t, backend=b)
        if levels == 1 and kind != "mixed heads":
            mask = flex_mask(table)
            arms["flex"] = lambda m=mask: flex(dense_q, dense_k, dense_v, block_mask=m).transpose(
                1, 2
            )
        for arm, run in arms.items():
            out = run().double().masked_fill(~kept, 0)
            error = float((out - exact).norm() / exact.norm())
            if not error <= 2 * eager_error:
                raise SystemExit(
                    f"{arm}, {kind}: error {error:.2e}, eager attention has {eager_error:.2e}"
                )
            ms = float(do_bench(run, warmup=60, rep=240, return_mode="median"))
            rows.append(
                {
                    "backend": arm, "dtype": str(dtype)[6:], "B": batch, "H": heads, "S": tokens,
                    "D": head_dim, "list": kind, "density": density, "ms": ms,
                    "tflops": flops * density / ms / 1e9, "error": error,
                    "eager_error": eager_error,
                }
            )  # fmt: skip
    dense = next(row["tflops"] for row in rows if row["backend"] == "sdpa")
    for row in rows:
        row["eta"] = row["tflops"] / dense
    return rows


def main() -> None:
    """Measure every shape, print a table, save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=int, help="only shapes with this number of tokens")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for shape in [shape for shape in SHAPES if args.tokens in (None, shape[2])]:
        rows += measure(shape, torch.bfloat16)
        save(args.out, rows)
    for row in rows:
        shape = "{B},{H},{S},{D}".format(**row)
        print(
            f"{shape:18} {row['list']:11} {row['backend']:20} {row['density']:.3f} "
            f"{row['ms']:8.3f} ms {row['tflops']:6.0f} TFLOP/s  eta {row['eta']:.3f}  "
            f"error {row['error']:.1e}"
        )


if __name__ == "__main__":
    main()
