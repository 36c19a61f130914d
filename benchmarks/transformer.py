"""Whole transformers with random weights: stock diffusers against sparse phases, in one run.

First one layer is checked: with a plan of `full` everywhere its error against float32 must be at
most twice that of stock diffusers in the same dtype. Then every arm is timed, eager and compiled.

    python -m benchmarks.transformer wan-1.3b-480p --out benchmarks/results/transformers-h200.json
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
from triton.testing import do_bench

import ajour
from ajour import Diagonal, Full, MultiDiagonal, Phase, Plan, Schedule, Stripe, TokenGrid, Window
from benchmarks.record import save

if TYPE_CHECKING:
    from collections.abc import Callable

    from ajour import Pattern


@dataclass(frozen=True)
class Case:
    """A model at a size.

    Attributes:
        layers: Layers that are built; per-layer times scale to the whole model.
        config: Further arguments of WanTransformer3DModel.
        latents: Latent frames, height and width.
    """

    layers: int
    config: dict[str, int]
    latents: tuple[int, int, int]


WAN_SMALL = {"num_attention_heads": 12, "ffn_dim": 8960}
WAN_LARGE = {"num_attention_heads": 40, "ffn_dim": 13824}
CASES = {
    "wan-1.3b-480p": Case(30, WAN_SMALL, (21, 60, 104)),
    "wan-14b-720p": Case(4, WAN_LARGE, (21, 90, 160)),
}
DENSITY = 0.2


def build(case: Case, layers: int, dtype: torch.dtype) -> torch.nn.Module:
    """The transformer on the GPU, random weights."""
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = WanTransformer3DModel(num_layers=layers, rope_max_seq_len=1024, **case.config)
    return model.to(dtype).eval().requires_grad_(False)


def inputs(case: Case, dtype: torch.dtype) -> dict[str, Any]:
    """One call's arguments: noise, a time step, 512 text tokens."""
    torch.manual_seed(1)
    return {
        "hidden_states": torch.randn(1, 16, *case.latents, device="cuda", dtype=dtype),
        "timestep": torch.full((1,), 500.0, device="cuda"),
        "encoder_hidden_states": torch.randn(1, 512, 4096, device="cuda", dtype=dtype),
        "return_dict": False,
    }


def candidates() -> list[Pattern]:
    """Patterns of each family by falling width."""
    return [
        *(Diagonal(width / 4) for width in range(24, 0, -1)),
        *(MultiDiagonal(size, size) for size in range(12, 0, -1)),
        *(Stripe(stride) for stride in range(3, 12)),
        *(Window(frames, size, size) for frames in (4, 2) for size in range(12, 1, -1)),
    ]


def plan(case: Case, layers: int, density: float) -> Plan:
    """A plan that mixes the families over the heads, each as wide as the density allows."""
    grid = TokenGrid(case.latents[0], case.latents[1] // 2, case.latents[2] // 2)
    best: dict[str, Pattern] = {}
    for pattern in candidates():
        found = ajour.lower([pattern], grid).density()
        if pattern.family not in best and found <= density * 1.02:
            best[pattern.family] = pattern
    return assign(case, layers, best if density < 1 else {"full": Full()})


def assign(case: Case, layers: int, patterns: dict[str, Pattern]) -> Plan:
    """A plan that gives the heads of every layer these patterns in turn, in every step."""
    heads = case.config["num_attention_heads"]
    names = tuple(list(patterns)[head % len(patterns)] for head in range(heads))
    model = {
        "transformer": "WanTransformer3DModel", "layers": layers, "heads": heads, "head_dim": 128,
    }  # fmt: skip
    return Plan(model, patterns, {"sparse": (names,) * layers}, Schedule((Phase(1.0, "sparse"),)))


def check(case: Case) -> tuple[float, float]:
    """Relative errors of (a full plan, stock) against float32, on one layer.

    Raises:
        SystemExit: If the plan's error is more than twice stock's.
    """
    scheduler = FlowMatchEulerDiscreteScheduler()
    exact = build(case, 1, torch.float32)(**inputs(case, torch.float32))[0]
    model, call = build(case, 1, torch.bfloat16), inputs(case, torch.bfloat16)
    stock = model(**call)[0].float()
    with ajour.sparse(model, plan(case, 1, 1.0), scheduler=scheduler):
        ours = model(**call)[0].float()
    errors = [float((x - exact).norm() / exact.norm()) for x in (ours, stock)]
    if not errors[0] <= 2 * errors[1]:
        raise SystemExit(f"full plan: error {errors[0]:.2e}, stock has {errors[1]:.2e}")
    return errors[0], errors[1]


def measure(name: str, repeats: int, compiled: bool) -> list[dict[str, Any]]:
    """All arms of one case."""
    case = CASES[name]
    ours_error, stock_error = check(case)
    call = inputs(case, torch.bfloat16)
    scheduler = FlowMatchEulerDiscreteScheduler()
    chosen = plan(case, case.layers, DENSITY)
    rows: list[dict[str, Any]] = []

    def timed(arm: str, forward: Callable[[], Any], density: float) -> None:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        forward()
        memory = torch.cuda.max_memory_allocated() - before
        ms = float(do_bench(forward, warmup=200, rep=repeats, return_mode="median"))
        rows.append(
            {
                "case": name, "arm": arm, "layers": case.layers, "density": density, "ms": ms,
                "ms_per_layer": ms / case.layers, "extra_memory_mb": memory / 2**20,
                "error": ours_error, "stock_error": stock_error,
                "patterns": [str(p) for p in chosen.patterns.values()],
            }
        )  # fmt: skip
        print(f"{name} {arm:18} {ms:9.2f} ms, {memory / 2**20:7.0f} MB beside weights", flush=True)

    for mode in ("eager", "compiled") if compiled else ("eager",):
        model = build(case, case.layers, torch.bfloat16)
        if mode == "compiled":
            torch._dynamo.reset()
            model.compile_repeated_blocks(fullgraph=True)
        timed(f"stock {mode}", lambda m=model: m(**call), 1.0)
        for backend in ("triton", "hopper"):
            with ajour.sparse(model, chosen, scheduler=scheduler, backend=backend):
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
    parser.add_argument("--eager-only", action="store_true")
    parser.add_argument("--repeats", type=int, default=1500, help="milliseconds per arm")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with torch.no_grad():
        for name in args.cases:
            rows += measure(name, args.repeats, not args.eager_only)
            save(args.out, rows)
    for row in rows:
        print(f"{row['case']} {row['arm']:18} {row['ms']:9.2f} ms  {row['speedup']:.2f}x")


if __name__ == "__main__":
    main()
