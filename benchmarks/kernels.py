"""Attention kernels on one GPU: ours on block tables against dense SDPA, in one run.

Every arm is first checked against float64 on sampled query blocks; a wrong arm is not timed.
TFLOP/s count selected 128 x 128 tiles only; eta is ours over dense SDPA's.

    python -m benchmarks.kernels --out benchmarks/results/kernels-h200.json
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from triton.testing import do_bench

from ajour import BLOCK, BlockTable, TokenGrid, attention
from ajour.backends import backend_reason
from ajour.backends.packing import pack
from benchmarks.record import save

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = [(1, 12, 32768, 128), (1, 12, 45056, 64), (1, 6, 75520, 128)]
BACKENDS = ["triton", "hopper"]
LISTS = ["full", "random 25%", "window 25%", "random 10%"]


def make_table(grid: TokenGrid, heads: int, kind: str, seed: int) -> BlockTable:
    """A level-0 table of one kind of list; random ones differ by head."""
    blocks, rng = grid.blocks, np.random.default_rng(seed)
    if kind == "full":
        maps = [np.zeros((blocks, blocks), dtype=np.int8)]
    elif kind.startswith("window"):
        distance = np.abs(np.arange(blocks)[:, None] - np.arange(blocks)[None, :])
        distance = np.minimum(distance, blocks - distance)
        maps = [np.where(distance <= blocks // 8, 0, -1).astype(np.int8)]
    else:
        count = round(blocks * int(kind.split()[1][:-1]) / 100)
        ranks = rng.random((heads, blocks, blocks)).argsort(axis=-1).argsort(axis=-1)
        maps = list(np.where(ranks < count, 0, -1).astype(np.int8))
    rows = [i % len(maps) for i in range(heads)]
    return BlockTable.from_levels(grid, maps, ["raster"] * len(maps), rows)


def errors(
    out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, table: BlockTable
) -> tuple[float, float]:
    """Relative L2 errors of `out` and of eager attention, on 4 query blocks x 2 heads."""
    wrong, eager_wrong, norm = 0.0, 0.0, 0.0
    for head in (0, q.shape[2] - 1):
        row = int(table.head_rows[head])
        for block in torch.linspace(0, table.grid.blocks - 1, 4).long().tolist():
            lo, hi = table.offsets[row, block, :2].tolist()
            keys = table.ids[lo:hi].long()[:, None] * BLOCK + torch.arange(BLOCK, device="cuda")
            keys = keys.flatten()
            rows = slice(block * BLOCK, (block + 1) * BLOCK)
            exact, eager = (
                ((x @ y.T) * q.shape[-1] ** -0.5).softmax(-1) @ z
                for x, y, z in (
                    (q[0, rows, head].to(t), k[0, keys, head].to(t), v[0, keys, head].to(t))
                    for t in (torch.float64, q.dtype)
                )
            )
            wrong += float((out[0, rows, head].double() - exact).square().sum())
            eager_wrong += float((eager.double() - exact).square().sum())
            norm += float(exact.square().sum())
    return (wrong / norm) ** 0.5, (eager_wrong / norm) ** 0.5


def measure(shape: tuple[int, int, int, int], dtype: torch.dtype) -> list[dict[str, Any]]:
    """All arms at one shape (batch, heads, tokens, head_dim)."""
    batch, heads, tokens, head_dim = shape
    grid = TokenGrid(1, tokens // BLOCK, BLOCK)
    torch.manual_seed(0)
    q, k, v = (
        torch.randn(batch, tokens, heads, head_dim, device="cuda", dtype=dtype) for _ in range(3)
    )
    dense_q, dense_k, dense_v = (x.transpose(1, 2).contiguous() for x in (q, k, v))
    flops = 4 * batch * heads * tokens**2 * head_dim
    rows: list[dict[str, Any]] = []

    def run(arm: str, kind: str, table: BlockTable, call: Callable[[], torch.Tensor]) -> None:
        error, eager = errors(call(), q, k, v, table)
        if not error <= 2 * eager:
            raise SystemExit(f"{arm}, {kind}: error {error:.2e}, eager attention has {eager:.2e}")
        ms = float(do_bench(call, warmup=100, rep=400, return_mode="median"))
        density = table.density()
        rows.append(
            {
                "backend": arm, "dtype": str(dtype)[6:], "B": batch, "H": heads, "S": tokens,
                "D": head_dim, "list": kind, "density": density, "ms": ms,
                "tflops": flops * density / ms / 1e9, "error": error, "eager_error": eager,
            }
        )  # fmt: skip

    for kind in LISTS:
        table = make_table(grid, heads, kind, seed=0).to("cuda")
        if kind == "full":
            run(
                "sdpa", kind, table,
                lambda: F.scaled_dot_product_attention(dense_q, dense_k, dense_v).transpose(1, 2),
            )  # fmt: skip
        packed = [pack(x, table, 1)[0] for x in (q, k, v)]
        for backend in BACKENDS:
            if backend_reason(backend, q.device, dtype, head_dim) is not None:
                continue
            attend_packed = import_module(f"ajour.backends.{backend}.launch").attend_packed
            arguments = (*packed, packed[1], packed[2], table, head_dim**-0.5, q.shape, 1)
            run(f"{backend} kernel", kind, table, lambda f=attend_packed, a=arguments: f(*a)[0])
            run(
                f"{backend} with packing", kind, table,
                lambda name=backend, t=table: attention(q, k, v, t, backend=name),
            )  # fmt: skip
    dense = next(row["tflops"] for row in rows if row["backend"] == "sdpa")
    for row in rows:
        row["eta"] = row["tflops"] / dense
    return rows


def main() -> None:
    """Measure every shape, print a table, save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    rows = [row for shape in SHAPES for row in measure(shape, torch.bfloat16)]
    for row in rows:
        shape = f"{row['B']},{row['H']},{row['S']},{row['D']}"
        print(
            f"{shape:18} {row['list']:11} {row['backend']:20} {row['ms']:8.3f} ms "
            f"{row['tflops']:6.0f} TFLOP/s  eta {row['eta']:.2f}  error {row['error']:.1e}"
        )
    save(args.out, rows)


if __name__ == "__main__":
    main()
