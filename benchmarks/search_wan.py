r"""A whole search at Wan 2.1 1.3B's real configuration: how long, how much memory, how well timed.

Weights are random, so the qualities mean nothing; VAE and tokenizer are the bundled model's. An
interrupted run is resumed; `--spent` adds its seconds.

    python -m benchmarks.search_wan --work build/search-wan \
        --out benchmarks/results/search-wan-h100.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import WanPipeline
from transformers import UMT5Config, UMT5EncoderModel

import ajour
from ajour.pipelines.bundled import load_pipeline
from ajour.pipelines.generate import sample
from ajour.pipelines.stopwatch import now
from ajour.search.engine import Search
from ajour.search.settings import Settings, Target, prompts_of, split
from ajour.search.workers import Workers
from benchmarks.cases import CASES
from benchmarks.record import save

if TYPE_CHECKING:
    from ajour.search.results import Outcome

CASE = CASES["wan2.1-1.3b-480p"]


def pipeline(device: str, dtype: torch.dtype, layers: int | None) -> Any:
    """The pipeline, with a text encoder of one layer and the real width."""
    mini = load_pipeline(None, "cpu")
    torch.manual_seed(0)
    config = UMT5Config(
        vocab_size=len(mini.tokenizer), d_model=4096, d_kv=64, d_ff=256, num_heads=4, num_layers=1
    )
    transformer = as_loaded(CASE.build(torch.float32, device), dtype)
    if layers is not None:
        transformer.blocks = transformer.blocks[:layers]
        transformer.register_to_config(num_layers=layers)
    pipe = WanPipeline(
        tokenizer=mini.tokenizer,
        text_encoder=UMT5EncoderModel(config).to(device, dtype).eval(),
        transformer=transformer,
        vae=mini.vae.to(device),
        scheduler=mini.scheduler,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def as_loaded(transformer: Any, dtype: torch.dtype) -> Any:
    """Weights in a dtype; weights that a loaded checkpoint keeps in float32 stay in float32."""
    kept = set(transformer._keep_in_fp32_modules)
    for name, weight in transformer.named_parameters():
        if kept.isdisjoint(name.split(".")):
            weight.data = weight.data.to(dtype)
    return transformer


def figures(outcome: Outcome, seconds: float) -> dict[str, Any]:
    """Times that the search predicted and measured."""
    attention = []
    for plan in (outcome.chosen, *outcome.baselines):
        assert plan.times is not None  # rejected plans only are not timed
        attention.append(
            {
                "plan": plan.name or "searched",
                "predicted": plan.predicted_attention_seconds,
                "measured": plan.times.attention_seconds,
            }
        )
    return {
        "search_seconds": seconds,
        "cost_model_error": outcome.costs.error,
        "speedup": outcome.chosen.speedup,
        "density": outcome.density,
        "attention_seconds": attention,
        "attention_error": max(abs(row["predicted"] / row["measured"] - 1) for row in attention),
    }


def main() -> None:
    """Searches, then runs dense, with the plan and with an automatic plan, at one seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of finished work")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--frames", type=int, default=81)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--layers", type=int, help="fewer than the real 30, to try the script")
    parser.add_argument("--spent", type=float, default=0.0, help="seconds of interrupted runs")
    parser.add_argument("--density", type=float, default=0.25)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    dtype = torch.float32 if args.device == "cpu" else torch.bfloat16
    call = {
        "num_frames": args.frames, "height": args.height, "width": args.width,
        "num_inference_steps": args.steps, "guidance_scale": 5.0,
    }  # fmt: skip
    calibration, verification = split(prompts_of(None, None), 1)
    settings = Settings(
        "wan2.1-1.3b, random weights", Target("density", args.density), calibration,
        verification[:1], call,
    )  # fmt: skip
    start = now(torch.device(args.device))
    pipe = pipeline(args.device, dtype, args.layers)
    workers = Workers()
    work = workers.open(args.work, settings.identity(), (args.work / "work-0.jsonl").exists())
    outcome = Search(pipe, settings, work, workers).run()
    seconds = args.spent + now(torch.device(args.device)) - start
    row = figures(outcome, seconds) | call | {"grid": str(outcome.grid)}
    row["dense_seconds"] = sample(pipe, verification[0], 0, "dense", **call).seconds
    for name, plan in (("sparse", outcome.plan), ("auto", "auto")):
        with ajour.sparse(pipe, plan, strict=True):
            row[f"{name}_seconds"] = sample(pipe, verification[0], 0, name, **call).seconds
            row["backend"] = ajour.summary(pipe).backend
    if args.device != "cpu":
        row["peak_memory_gb"] = torch.cuda.max_memory_allocated() / 2**30
    print(row)
    save(args.out, [row])


if __name__ == "__main__":
    main()
