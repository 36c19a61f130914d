r"""A whole search at Wan 2.1 1.3B's real configuration: how long, how much memory, how well timed.

Weights are random, so its qualities mean nothing; VAE and tokenizer are the bundled model's. It
goes on where an interrupted run stopped, whose seconds `--spent` adds.

    python -m benchmarks.search_wan --work build/search-wan \
        --out benchmarks/results/search-wan-h100.json
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import WanPipeline
from transformers import UMT5Config, UMT5EncoderModel

import ajour
from ajour.pipelines.bundled import load_pipeline
from ajour.pipelines.generate import sample
from ajour.search.engine import Search
from ajour.search.settings import GENERAL_PROMPTS, Settings, Target, split
from ajour.search.workers import Workers
from benchmarks.cases import CASES
from benchmarks.record import save

if TYPE_CHECKING:
    from ajour.search.engine import Outcome

CASE = CASES["wan2.1-1.3b-480p"]


def pipeline(device: str, dtype: torch.dtype, layers: int | None) -> Any:
    """The pipeline, with a text encoder of one layer and the real width."""
    own = load_pipeline(None, "cpu")
    torch.manual_seed(0)
    config = UMT5Config(
        vocab_size=len(own.tokenizer), d_model=4096, d_kv=64, d_ff=256, num_heads=4, num_layers=1
    )
    transformer = as_loaded(CASE.build(torch.float32, device), dtype)
    if layers is not None:
        transformer.blocks = transformer.blocks[:layers]
        transformer.register_to_config(num_layers=layers)
    pipe = WanPipeline(
        tokenizer=own.tokenizer,
        text_encoder=UMT5EncoderModel(config).to(device, dtype).eval(),
        transformer=transformer,
        vae=own.vae.to(device),
        scheduler=own.scheduler,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def as_loaded(transformer: Any, dtype: torch.dtype) -> Any:
    """Weights in a dtype, but for those that a checkpoint's loading keeps in float32."""
    kept = set(transformer._keep_in_fp32_modules)
    for name, weight in transformer.named_parameters():
        if kept.isdisjoint(name.split(".")):
            weight.data = weight.data.to(dtype)
    return transformer


def figures(outcome: Outcome, seconds: float) -> dict[str, Any]:
    """What the search itself says of its times."""
    facts = outcome.facts
    attention = [
        {
            "plan": one.get("name", "searched"),
            "predicted": one["predicted_attention_seconds"],
            "measured": one["attention_seconds"],
        }
        for one in (facts["chosen"], *facts["baselines"])
    ]
    return {
        "search_seconds": seconds,
        "cost_model_error": facts["cost_model_error"],
        "speedup": facts["chosen"]["speedup"],
        "density": facts["density"],
        "attention_seconds": attention,
        "attention_error": max(abs(one["predicted"] / one["measured"] - 1) for one in attention),
    }


def main() -> None:
    """Searches, then runs dense, with the plan and with an automatic one, at one seed."""
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
    calibration, verification = split(GENERAL_PROMPTS, 1)
    settings = Settings(
        "wan2.1-1.3b, random weights", Target("density", args.density), calibration,
        verification[:1], call,
    )  # fmt: skip
    begun = time.perf_counter()
    pipe = pipeline(args.device, dtype, args.layers)
    workers = Workers()
    work = workers.open(args.work, settings.identity(), (args.work / "work-0.jsonl").exists())
    outcome = Search(pipe, settings, work, workers).run()
    spent = args.spent + time.perf_counter() - begun
    row = figures(outcome, spent) | call | {"grid": outcome.facts["grid"]}
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
