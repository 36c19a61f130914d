r"""ajour in the stack that people use: compiled, with 8-bit weights, with reused steps, in one run.

Real configurations with random weights and a few layers. For every case and arm: one pass of a
sparse step, a run of 20 steps (the first fifth dense), memory, and the error of a pass that keeps
all of the attention against stock diffusers in float32.

    python -m benchmarks.stack wan2.1-14b-720p hunyuanvideo-720p flux-4k wan2.1-1.3b-480p \
        --out benchmarks/results/stack-h200.json

All arms of a case ran one after the other on the same machine. 8-bit weights are torchao's, in
float8 with activations scaled while they run; ajour's own part stays in bf16.
"""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from triton.testing import do_bench

import ajour
from ajour import Phase, Schedule
from ajour.pipelines.compiling import CompiledBlocks, repeated_blocks
from benchmarks.cases import CASES
from benchmarks.record import save
from benchmarks.transformer import DENSITY, plan

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ajour import Plan

STEPS = 20
SPARSE = Schedule((Phase(1.0, "dense"), Phase(0.8, "sparse")))
"""The first fifth of a run is dense."""

REUSING = Schedule(
    tuple(
        Phase(round(1 - step / STEPS, 4), "dense" if step < 4 else ("sparse", "reuse")[step % 2])
        for step in range(STEPS)
    )
)
"""As `SPARSE`, but every other sparse step is reused."""

LAYERS = {"wan2.1-14b-720p": {"num_layers": 2}, "wan2.1-1.3b-480p": {"num_layers": 10}}
"""Fewer layers than usual, where a run of 20 steps would take long; times are per built layer."""

LEAST_FEATURES = 1024
"""Linear layers with fewer inputs keep their weights: they are small."""


class Arm(NamedTuple):
    """What a case runs with."""

    name: str
    sparse: bool = False
    compiled: bool = False
    bytes: bool = False
    schedule: Schedule = SPARSE


ARMS = (
    Arm("stock eager"),
    Arm("stock compiled", compiled=True),
    Arm("ajour eager", sparse=True),
    Arm("ajour compiled", sparse=True, compiled=True),
    Arm("ajour compiled, 8-bit weights", sparse=True, compiled=True, bytes=True),
    Arm("all of it, half of the steps reused", True, True, True, REUSING),
)


def quantise(model: torch.nn.Module) -> None:
    """Puts the wide linear layers of a model's blocks into float8, activations as they come."""
    from torchao.quantization import (
        Float8DynamicActivationFloat8WeightConfig,
        PerRow,
        quantize_,
    )

    config = Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())

    def wide(part: torch.nn.Module, _: str) -> bool:
        return isinstance(part, torch.nn.Linear) and part.in_features >= LEAST_FEATURES

    for block in repeated_blocks(model):
        quantize_(block, config, filter_fn=wide)


def run(model: torch.nn.Module, call: dict[str, Any], scheduler: Any, steps: int) -> torch.Tensor:
    """The model's output in the last step of a run; no guidance, latents stay as they are.

    The call's own time step is that of noise level 0.5.
    """
    scheduler.set_timesteps(steps)
    half, still = call["timestep"], torch.zeros(1, 4)
    for level in scheduler.timesteps:
        now = (half * (float(level) / 500)).to(half.dtype)
        out = model(**call | {"timestep": now})[0]
        scheduler.step(still, level, still)
    return out


def error(out: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative error in the Frobenius norm."""
    return float((out.float() - exact).norm() / exact.norm())


def measure(name: str, repeats: int, device: str) -> list[dict[str, Any]]:
    """All arms of a case."""
    case = CASES[name]
    case = replace(case, layers=LAYERS.get(name, case.layers))
    exact_model = case.build(torch.float32, device)
    exact = exact_model(**case.call(torch.float32, device))[0]
    del exact_model
    call = case.call(torch.bfloat16, device)
    sparse = plan(case.build(torch.bfloat16, "meta"), case.grid, DENSITY)
    full = plan(case.build(torch.bfloat16, "meta"), case.grid, 1.0)
    rows: list[dict[str, Any]] = []
    model, made = None, (False, False)
    for arm in ARMS:
        if model is None or made != (arm.compiled, arm.bytes):
            model = None
            torch.cuda.empty_cache()
            torch._dynamo.reset()
            model, made = case.build(torch.bfloat16, device), (arm.compiled, arm.bytes)
            if arm.bytes:
                quantise(model)
            if arm.compiled:
                CompiledBlocks([model]).compile()
        weights = torch.cuda.memory_allocated()
        rows.append({"case": name, "arm": arm.name, "layers": case.depth})
        rows[-1] |= timed(model, arm, call, exact, (sparse, full), repeats)
        rows[-1]["weights_mb"] = weights / 2**20
        first = rows[0]
        rows[-1] |= {
            "speedup": first["pass_ms"] / rows[-1]["pass_ms"],
            "run_speedup": first["run_seconds"] / rows[-1]["run_seconds"],
        }
        row = rows[-1]
        print(
            f"{name} {arm.name:36} pass {row['pass_ms']:8.1f} ms {row['speedup']:.2f}x, run "
            f"{row['run_seconds']:6.2f} s {row['run_speedup']:.2f}x, "
            f"{row['extra_memory_mb']:6.0f} MB beside weights, error {row['error']:.1e}",
            flush=True,
        )
    return rows


def timed(
    model: torch.nn.Module,
    arm: Arm,
    call: dict[str, Any],
    exact: torch.Tensor,
    plans: tuple[Plan, Plan],
    repeats: int,
) -> dict[str, Any]:
    """Time of a pass and of a run, memory beside the weights, error with all of the attention."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    sparse, full = plans

    def enabled(chosen: Plan) -> AbstractContextManager[Any]:
        if not arm.sparse:
            return nullcontext()
        return ajour.sparse(model, chosen, scheduler=scheduler, strict=True)

    with enabled(full):
        scheduler.set_timesteps(1)
        row: dict[str, Any] = {"error": error(model(**call)[0], exact)}
    with enabled(sparse):
        scheduler.set_timesteps(1)
        model(**call)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        model(**call)
        row["extra_memory_mb"] = (torch.cuda.max_memory_allocated() - before) / 2**20
        row["pass_ms"] = float(
            do_bench(lambda: model(**call), warmup=100, rep=repeats, return_mode="median")
        )
        row["density"] = (ajour.summary(model).density("sparse") if arm.sparse else 1.0) or 0.0
    with enabled(replace(sparse, schedule=arm.schedule)):
        run(model, call, scheduler, 6)  # every phase once
        torch.cuda.synchronize()
        start = time.monotonic()
        run(model, call, scheduler, STEPS)
        torch.cuda.synchronize()
        row["run_seconds"] = time.monotonic() - start
        if arm.sparse:
            summary = ajour.summary(model)
            row["steps"] = {name: summary.steps.count(name) for name in set(summary.steps)}
    return row


def main() -> None:
    """Measure the cases asked for and save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("cases", nargs="+", choices=CASES)
    parser.add_argument("--repeats", type=int, default=600, help="milliseconds per arm")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with torch.no_grad():
        for name in args.cases:
            rows += measure(name, args.repeats, "cuda")
            save(args.out, rows, steps=STEPS)


if __name__ == "__main__":
    main()
