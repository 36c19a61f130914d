r"""Every way to spend a quality budget, on the bundled model, in one run.

Plans, automatic plans, fewer steps, the step caches of diffusers alone, and each cache on top of a
plan that does not reuse steps itself.

    python -m benchmarks.methods --prompts 16 --repeats 5 --plan a.json b.json auto:fast \
        --sparse-only old.json --out benchmarks/results/methods-cpu.json

Quality is over all prompts, speed-up over `--repeats` turns of all arms on the first one.
"""

from __future__ import annotations

import ast
import contextlib
import io
from typing import Any

import torch
from diffusers import FirstBlockCacheConfig, MagCacheConfig, TaylorSeerCacheConfig

from ajour.pipelines.bundled import FOLDER
from ajour.pipelines.generate import sample
from benchmarks.mini import Arm, arguments, fewer_steps, load, options, read_plan, run_arms, running
from tools.mini.captions import canonical
from tools.mini.prompts import held_out_prompts

FIRST_BLOCK = (0.1, 0.15, 0.2, 0.3)
"""Thresholds of FirstBlockCache."""

MAGNITUDE = ((0.06, 2), (0.12, 3), (0.24, 4))
"""Thresholds and most skipped steps of MagCache."""

TAYLOR = ((2, 1), (3, 1), (3, 2), (4, 1))
"""Intervals and orders of TaylorSeer."""


def caches(steps: int, ratios: list[float]) -> list[tuple[str, Any]]:
    """Every cache at several settings, by name."""
    first = [(f"FirstBlockCache {x:g}", FirstBlockCacheConfig(threshold=x)) for x in FIRST_BLOCK]
    magnitude = [
        (
            f"MagCache {threshold:g}/{most}",
            MagCacheConfig(
                threshold=threshold,
                max_skip_steps=most,
                num_inference_steps=steps,
                mag_ratios=ratios,
            ),
        )
        for threshold, most in MAGNITUDE
    ]
    taylor = [
        (
            f"TaylorSeer {interval}/{order}",
            TaylorSeerCacheConfig(
                cache_interval=interval, max_order=order, taylor_factors_dtype=torch.float32
            ),
        )
        for interval, order in TAYLOR
    ]
    return [*first, *magnitude, *taylor]


def magnitude_ratios(pipe: Any, args: Any) -> list[float]:
    """The ratios that MagCache needs, by its calibration on a prompt that is not compared."""
    prompt = canonical(held_out_prompts(1, args.prompt_seed + 1)[0])
    calibration = MagCacheConfig(num_inference_steps=args.steps, calibrate=True)
    printed = io.StringIO()
    with (
        running(pipe, Arm("calibration", cache=calibration), None),
        contextlib.redirect_stdout(printed),
    ):
        sample(pipe, prompt, 0, "calibration", **options(args))
    lists = [line for line in printed.getvalue().splitlines() if line.startswith("[")]
    return [float(x) for x in ast.literal_eval(next(x for x in lists if "MagCache" not in x))]


def main() -> None:
    """Runs the plans of the command line and all caches."""
    parser = arguments(__doc__)
    parser.add_argument("--plan", nargs="*", default=[str(FOLDER / "plan.json"), "auto"])
    parser.add_argument("--sparse-only", help="plan file without reused steps, run with each cache")
    args = parser.parse_args()
    pipe = load(args)
    alone = [
        Arm(name, cache=cache) for name, cache in caches(args.steps, magnitude_ratios(pipe, args))
    ]
    arms = [*map(read_plan, args.plan), *fewer_steps(args), *alone]
    if args.sparse_only:
        plan = read_plan(args.sparse_only)
        arms += [plan, *(Arm(f"{plan.name} + {a.name}", plan.plan, a.cache) for a in alone)]
    run_arms(arms, pipe, args)


if __name__ == "__main__":
    main()
