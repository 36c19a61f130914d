"""Norm, rotary embedding, reordering and pooling of q, k and v in one pass, against stock's.

Stock is what diffusers does to q and k alone: in Wan RMS norms over all heads, then the rotation;
in joint attention norms of each head with a weight per stream, the rotation (in HunyuanVideo of the
video alone), and one tensor made of both streams, of v too. `pack_ms` is the operator's packing
without a prologue, which is needed beside stock's steps.
The floor is one read and one write of q, k and v (and of pooled rows) at the copy bandwidth, and of
the streams if there are two.

    python -m benchmarks.prologue --out benchmarks/results/prologue-h200.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.normalization import RMSNorm
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
    "hunyuanvideo-720p": (TokenGrid(33, 45, 80, after=256), 24),
    "flux-4k": (TokenGrid(1, 256, 256, before=512), 24),
}
HEAD_DIM = 128


def milliseconds(call: Callable[[], object]) -> float:
    """Median time of a call."""
    return float(do_bench(call, warmup=50, rep=200, return_mode="median"))


def wan(x: torch.Tensor, norm: Norm, rope: Rope) -> torch.Tensor:
    """Wan's norm and rotation in diffusers 0.42, operation by operation."""
    heads = x.shape[2]
    y = F.rms_norm(x.flatten(2), norm.weight.shape, norm.weight, norm.eps).unflatten(2, (heads, -1))
    first, second = y.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rope.cosines[None, :, None, 0::2], rope.sines[None, :, None, 1::2]
    out = torch.empty_like(y)
    out[..., 0::2] = first * cos - second * sin
    out[..., 1::2] = first * sin + second * cos
    return out.type_as(y)


def steps_of(
    grid: TokenGrid, heads: int
) -> tuple[Callable[[list[torch.Tensor]], torch.Tensor], list[int], Norm, Rope]:
    """What stock does to queries or keys, and its definition here.

    Returns:
        Stock's steps from a tensor per stream to one, the streams' tokens, norm and rotation.
    """
    streams = [n for n in (grid.before, grid.video_tokens, grid.after) if n]
    rotated = grid.video_tokens if grid.after else grid.seq_len
    angle = torch.randn(rotated, HEAD_DIM // 2, device="cuda").repeat_interleave(2, 1)
    tables = angle.cos(), angle.sin()
    rope = Rope(*tables)
    kind = RMSNorm if grid.after else torch.nn.RMSNorm
    channels = HEAD_DIM if len(streams) > 1 else heads * HEAD_DIM
    norms = [kind(channels, eps=1e-6).cuda().bfloat16().requires_grad_(False) for _ in streams]
    for module in norms:
        module.weight.uniform_(0.5, 1.5)
    if len(streams) == 1:
        norm = Norm(norms[0].weight, 1e-6)
        return lambda parts: wan(parts[0], norm, rope), streams, norm, rope

    def joint(parts: list[torch.Tensor]) -> torch.Tensor:
        first, second = (module(x) for module, x in zip(norms, parts, strict=True))
        if grid.before:
            return apply_rotary_emb(torch.cat((first, second), 1), tables, sequence_dim=1)
        return torch.cat((apply_rotary_emb(first, tables, sequence_dim=1), second), 1)

    return joint, streams, Norm(norms[0].weight, 1e-6, norms[1].weight, streams[0]), rope


def measure(name: str, bandwidth: float) -> dict[str, Any]:
    """One shape; bandwidth in bytes a millisecond, read plus written."""
    grid, heads = SHAPES[name]
    torch.manual_seed(0)
    stock, streams, norm, rope = steps_of(grid, heads)

    def joined(parts: list[torch.Tensor]) -> torch.Tensor:
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    q, k, v = (
        [torch.randn(1, n, heads, HEAD_DIM, device="cuda", dtype=torch.bfloat16) for n in streams]
        for _ in range(3)
    )
    table = lower([Window(2, 6, 6)] * heads, grid).to("cuda")
    whole = joined(q)
    exact = rotate(normalise(whole.double(), norm), rope)
    slots = table.slots[0].long()
    packed = prepare(whole, table, norm, rope, 1)[0].view(heads, -1, HEAD_DIM)[:, slots >= 0]
    error = (packed.double() - exact[0, slots[slots >= 0]].transpose(0, 1)).norm() / exact.norm()
    stock_error = (stock(q).double() - exact).norm() / exact.norm()
    if not error <= stock_error <= 0.01:
        raise SystemExit(f"{name}: error {error:.2e}, stock has {stock_error:.2e}")
    del exact, packed
    pass_ms = 2 * whole.nbytes / bandwidth
    pooled_ms = whole.nbytes * POOLED_ROWS / BLOCK / bandwidth
    passes = 3 if len(streams) == 1 else 6
    row: dict[str, Any] = {
        "shape": name, "dtype": "bfloat16", "error": float(error),
        "stock_error": float(stock_error), "copy_tb_s": bandwidth / 1e9,
        "stock_ms": milliseconds(lambda: (stock(q), stock(k), joined(v))),
        "join_ms": milliseconds(lambda: (joined(q), joined(k), joined(v))) if passes > 3 else 0.0,
    }  # fmt: skip
    for levels, floor in ((1, passes * pass_ms), (4, passes * pass_ms + 2 * pooled_ms)):
        ms = milliseconds(
            lambda n=levels: (
                prepare(joined(q), table, norm, rope, 1),
                prepare(joined(k), table, norm, rope, n),
                pack(joined(v), table, n),
            )
        )  # fmt: skip
        pack_ms = milliseconds(
            lambda n=levels: (pack(whole, table, 1), pack(whole, table, n), pack(whole, table, n))
        )
        what = "exact" if levels == 1 else "pooled"
        row |= {
            f"{what}_ms": ms, f"{what}_floor_ms": floor, f"{what}_over_floor": ms / floor,
            f"{what}_over_stock": ms / row["stock_ms"], f"{what}_pack_ms": pack_ms,
        }  # fmt: skip
    return row


def main() -> None:
    """Measure all shapes, print and save."""
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
