"""Time of measuring captured maps and of automatic choices, relative to a dense attention call.

python -m benchmarks.capture --out benchmarks/results/capture-h100.json
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from tqdm import tqdm

from ajour import Captured, TokenGrid, attention, lower
from ajour.capture import CapturedRows, PackedLevels, capture, expand
from ajour.lists import tile_shares
from ajour.pipelines.auto import Auto
from ajour.pipelines.choosing import AutoPlanner
from benchmarks.record import save

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = {
    "1x12x32768x128": (TokenGrid(16, 32, 64), 12, 128, 30),
    "1x40x75600x128": (TokenGrid(21, 45, 80), 40, 128, 40),
}
"""Grid, heads, head_dim and layers; the last three as in Wan 2.1 1.3B and 14B."""

PATTERN = Captured([0.2] * 4)


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, without the first call."""
    times = []
    for _ in range(repeats + 1):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return median(times[1:])


def measure(name: str, repeats: int) -> dict[str, Any]:
    """All times of a shape."""
    grid, heads, head_dim, layers = SHAPES[name]
    torch.manual_seed(0)
    shape = (1, grid.seq_len, heads, head_dim)
    q, k, v = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    levels = capture(q, k, grid, PATTERN)
    rows = CapturedRows.of(levels, range(heads), PATTERN)
    assert torch.equal(rows.levels.unpack(), levels)
    table = lower([PATTERN] * heads, grid).to("cuda")
    model = {"transformer": "", "layers": layers, "heads": heads, "head_dim": head_dim}
    channels = heads * head_dim
    weight = torch.randn(channels, channels, device="cuda", dtype=torch.bfloat16) * channels**-0.5
    planner = AutoPlanner(Auto(), model, grid, [1.0])
    listeners = [planner.listener(layer, lambda: weight) for layer in range(layers)]

    def dense() -> object:
        return F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        )

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    allocated = torch.cuda.memory_allocated()
    start = time.perf_counter()
    for listen in listeners:
        listen(q, k, v, None, grid)
    planner.decide()
    torch.cuda.synchronize()
    plan_seconds = time.perf_counter() - start
    plan_bytes = torch.cuda.max_memory_allocated() - allocated
    times = {
        "dense": seconds(dense, repeats),
        "capture": seconds(
            lambda: PackedLevels.pack(capture(q, k, grid, PATTERN), PATTERN.levels), repeats
        ),
        "expand": seconds(lambda: expand([table], [[rows]])[0], repeats),
        "sparse": seconds(lambda: attention(q, k, v, expand([table], [[rows]])[0]), repeats),
        "auto": seconds(lambda: listeners[0](q, k, v, None, grid), repeats),
    }
    return {
        "shape": name,
        "dtype": "bfloat16",
        "density": float(tile_shares(levels).mean()),
        "packed_bytes_per_layer": rows.levels.data.nbytes,
        "packed_bytes_all_layers": rows.levels.data.nbytes * layers,
        "auto_plan": {
            "layers": layers,
            "seconds": plan_seconds,
            "memory_gib": plan_bytes / 2**30,
        },
        "ms": {key: value * 1000 for key, value in times.items()},
        "relative_to_dense": {key: value / times["dense"] for key, value in times.items()},
    }


def main() -> None:
    """Measure every shape, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = [measure(name, args.repeats) for name in tqdm(SHAPES, unit="shape")]
    for row in rows:
        print(row)
    save(args.out, rows)


if __name__ == "__main__":
    main()
