r"""Whole transformers with random weights: stock diffusers against sparse phases, in one run.

First one layer is checked: with a plan of `full` everywhere its error against float32 must be at
most twice that of stock diffusers in the same dtype. Then every arm is timed, eager and compiled.

    python -m benchmarks.transformer flux-4k hunyuanvideo-720p wan2.1-1.3b-480p wan2.2-5b-704p \
        cogvideox1.5-5b-81f wan2.1-14b-720p --compiled wan2.1-14b-720p --repeats 800 \
        --out benchmarks/results/transformers-h100.json

All cases ran on the same machine, one after the other.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from triton.testing import do_bench

import ajour
from ajour import Diagonal, Full, MultiDiagonal, Phase, Plan, Schedule, Stripe, TokenGrid, Window
from ajour.pipelines.auto import model_of
from benchmarks.cases import CASES
from benchmarks.record import save

if TYPE_CHECKING:
    from collections.abc import Callable

    from ajour import Pattern
    from benchmarks.cases import Case


DENSITY = 0.2


def candidates(grid: TokenGrid) -> list[Pattern]:
    """Patterns of each kind by falling width."""
    if grid.frames == 1:
        boxes = range(grid.height // 4, 0, -4)
        return [*(Window(0, size, size) for size in boxes), *(Diagonal(n / 64) for n in boxes)]
    return [
        *(Diagonal(width / 4) for width in range(24, 0, -1)),
        *(MultiDiagonal(size, size) for size in range(12, 0, -1)),
        *(Stripe(stride) for stride in range(3, 12)),
        *(Window(frames, size, size) for frames in (4, 2) for size in range(12, 1, -1)),
    ]


def plan(model: torch.nn.Module, grid: TokenGrid, density: float) -> Plan:
    """A plan that mixes the kinds over the heads, each as wide as the density allows."""
    best: dict[str, Pattern] = {}
    for pattern in candidates(grid) if density < 1 else [Full()]:
        fits = ajour.lower([pattern], grid).density() <= density * 1.02
        if fits and pattern.kind not in best:
            best[pattern.kind] = pattern
    facts = model_of(model)
    names = tuple(list(best)[head % len(best)] for head in range(facts["heads"]))
    schedule = Schedule((Phase(1.0, "sparse"),))
    return Plan(facts, best, {"sparse": (names,) * facts["layers"]}, schedule)


def check(case: Case) -> tuple[float, float]:
    """Relative errors of (a full plan, stock) against float32, on one layer of each kind.

    Raises:
        SystemExit: If the plan's error is more than twice stock's.
    """
    scheduler = FlowMatchEulerDiscreteScheduler()
    model = case.build(torch.float32, "cuda", one_of_each=True)
    exact = model(**case.call(torch.float32, "cuda"))[0]
    model, call = model.bfloat16(), case.call(torch.bfloat16, "cuda")
    stock = model(**call)[0].float()
    with ajour.sparse(model, plan(model, case.grid, 1.0), scheduler=scheduler, strict=True):
        scheduler.set_timesteps(1)
        ours = model(**call)[0].float()
    errors = [float((x - exact).norm() / exact.norm()) for x in (ours, stock)]
    if not errors[0] <= 2 * errors[1]:
        raise SystemExit(f"full plan: error {errors[0]:.2e}, stock has {errors[1]:.2e}")
    return errors[0], errors[1]


def measure(name: str, repeats: int, compiled: bool, backends: list[str]) -> list[dict[str, Any]]:
    """All arms of one case."""
    case = CASES[name]
    ours_error, stock_error = check(case)
    call = case.call(torch.bfloat16, "cuda")
    scheduler = FlowMatchEulerDiscreteScheduler()
    chosen = plan(case.build(torch.bfloat16, "meta"), case.grid, DENSITY)
    rows: list[dict[str, Any]] = []

    def timed(arm: str, forward: Callable[[], Any], density: float) -> None:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        forward()
        memory = torch.cuda.max_memory_allocated() - before
        ms = float(do_bench(forward, warmup=200, rep=repeats, return_mode="median"))
        rows.append(
            {
                "case": name, "arm": arm, "layers": case.depth, "density": density, "ms": ms,
                "ms_per_layer": ms / case.depth, "extra_memory_mb": memory / 2**20,
                "error": ours_error, "stock_error": stock_error,
                "patterns": [str(p) for p in chosen.patterns.values()],
            }
        )  # fmt: skip
        print(f"{name} {arm:18} {ms:9.2f} ms, {memory / 2**20:7.0f} MB beside weights", flush=True)

    for mode in ("eager", "compiled") if compiled else ("eager",):
        model = case.build(torch.bfloat16, "cuda")
        if mode == "compiled":
            torch._dynamo.reset()
            model.compile_repeated_blocks(fullgraph=True)
        timed(f"stock {mode}", lambda m=model: m(**call), 1.0)
        for backend in backends:
            with ajour.sparse(model, chosen, scheduler=scheduler, backend=backend, strict=True):
                scheduler.set_timesteps(1)
                model(**call)
                density = ajour.summary(model).density("sparse") or 0.0
                timed(f"{backend} {mode}", lambda m=model: m(**call), density)
    for row in rows:
        mode = row["arm"].split()[1]
        stock = next(r["ms"] for r in rows if r["arm"] == f"stock {mode}")
        row["speedup"] = stock / row["ms"]
    return rows


def main() -> None:
    """Measure the cases asked for and save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="+", choices=CASES)
    parser.add_argument("--compiled", nargs="*", choices=CASES, default=[])
    parser.add_argument("--backends", nargs="*", default=["hopper"])
    parser.add_argument("--repeats", type=int, default=1500, help="milliseconds per arm")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with torch.no_grad():
        for name in args.cases:
            rows += measure(name, args.repeats, name in args.compiled, args.backends)
            save(args.out, rows)
    for row in rows:
        print(f"{row['case']} {row['arm']:18} {row['ms']:9.2f} ms  {row['speedup']:.2f}x")


if __name__ == "__main__":
    main()
