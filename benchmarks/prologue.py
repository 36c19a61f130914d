"""Norm, rotary embedding, reordering and pooling of q, k and v in one pass, against stock's.

Stock is what Wan does in diffusers: RMS norms over all heads, then the rotation, on q and k alone.
The floor is one read and one write of q, k and v (and of pooled rows) at the copy bandwidth.

    python -m benchmarks.prologue --out benchmarks/results/prologue-h200.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from triton.testing import do_bench

from ajour import Norm, Rope, TokenGrid, Window, lower
from ajour.backends.packing import POOLED_ROWS, pack
from ajour.backends.prologue import prepare
from ajour.grid import BLOCK
from ajour.prologue import normalise, rotate
from benchmarks.record import save

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = {
    "wan2.1-1.3b-480p": (TokenGrid(21, 30, 52), 12),
    "wan2.1-14b-720p": (TokenGrid(21, 45, 80), 40),
}
HEAD_DIM = 128


def milliseconds(call: Callable[[], object]) -> float:
    """Median time of a call."""
    return float(do_bench(call, warmup=50, rep=200, return_mode="median"))


def stock(x: torch.Tensor, norm: Norm, rope: Rope) -> torch.Tensor:
    """Wan's norm and rotation in diffusers 0.42, operation by operation."""
    heads = x.shape[2]
    y = F.rms_norm(x.flatten(2), norm.weight.shape, norm.weight, norm.eps).unflatten(2, (heads, -1))
    first, second = y.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rope.cosines[None, :, None, 0::2], rope.sines[None, :, None, 1::2]
    out = torch.empty_like(y)
    out[..., 0::2] = first * cos - second * sin
    out[..., 1::2] = first * sin + second * cos
    return out.type_as(y)


def measure(name: str, bandwidth: float) -> dict[str, Any]:
    """One shape; bandwidth in bytes a millisecond, read plus written."""
    grid, heads = SHAPES[name]
    torch.manual_seed(0)
    shape = (1, grid.seq_len, heads, HEAD_DIM)
    q, k, v = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    norm = Norm(torch.rand(heads * HEAD_DIM, device="cuda").bfloat16() + 0.5, 1e-6)
    angle = torch.randn(grid.seq_len, HEAD_DIM // 2, device="cuda").repeat_interleave(2, 1)
    rope = Rope(angle.cos(), angle.sin())
    table = lower([Window(2, 6, 6)] * heads, grid).to("cuda")
    exact = rotate(normalise(q.double(), norm), rope)
    slots = table.slots[0].long()
    packed = prepare(q, table, norm, rope, 1)[0].view(heads, -1, HEAD_DIM)[:, slots >= 0].double()
    error = (packed - exact[0, slots[slots >= 0]].transpose(0, 1)).norm() / exact.norm()
    stock_error = (stock(q, norm, rope).double() - exact).norm() / exact.norm()
    if not error <= stock_error:
        raise SystemExit(f"{name}: error {error:.2e}, stock has {stock_error:.2e}")
    pass_ms = 2 * q.nbytes / bandwidth
    pooled_ms = q.nbytes * POOLED_ROWS / BLOCK / bandwidth
    found: dict[str, Any] = {
        "shape": name, "dtype": "bfloat16", "error": float(error),
        "stock_error": float(stock_error), "copy_tb_s": bandwidth / 1e9,
        "stock_ms": milliseconds(lambda: (stock(q, norm, rope), stock(k, norm, rope))),
    }  # fmt: skip
    for levels, floor in ((1, 3 * pass_ms), (4, 3 * pass_ms + 2 * pooled_ms)):
        ms = milliseconds(
            lambda n=levels: (
                prepare(q, table, norm, rope, 1),
                prepare(k, table, norm, rope, n),
                pack(v, table, n),
            )
        )  # fmt: skip
        what = "exact" if levels == 1 else "pooled"
        found |= {
            f"{what}_ms": ms, f"{what}_floor_ms": floor, f"{what}_over_floor": ms / floor,
            f"{what}_over_stock": ms / found["stock_ms"],
        }  # fmt: skip
    return found


def main() -> None:
    """Measure both shapes, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    source = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    bandwidth = 2 * source.nbytes / milliseconds(lambda: target.copy_(source))
    rows = [measure(name, bandwidth) for name in SHAPES]
    for row in rows:
        print({key: round(x, 4) if isinstance(x, float) else x for key, x in row.items()})
    save(args.out, rows)


if __name__ == "__main__":
    main()
