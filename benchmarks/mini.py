r"""The bundled model under plans: speed, PSNR, SSIM and prompt adherence on held-out prompts.

Every plan is compared with dense attention at the same seeds in one run. Adherence is the share of
true claims (colour, start place, motion of every thing of the caption) by `tools.mini.reader`.

    python -m benchmarks.mini --prompts 16 --repeats 5 --plan pipelines/mini/plan.json auto \
        --out benchmarks/results/mini-cpu.json
    python -m benchmarks.mini --prompts 64 --out benchmarks/results/mini-adherence.json

Quality is over all prompts, speed-up over `--repeats` turns of dense attention
and every plan on the first one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from ajour import Auto, Plan, sparse, summary
from ajour.pipelines.bundled import FOLDER, Defaults, load_pipeline
from ajour.pipelines.generate import sample
from ajour.pipelines.quality import psnr, ssim
from ajour.pipelines.video import side_by_side, to_bytes, write_mp4
from ajour.schedule import DENSE
from benchmarks.record import save
from tools.mini.captions import canonical
from tools.mini.prompts import held_out_prompts
from tools.mini.reader import score

if TYPE_CHECKING:
    from collections.abc import Callable

    from ajour.pipelines.generate import Sample

DEFAULTS = Defaults()


def options(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of the pipeline's call."""
    return {
        "num_frames": args.frames,
        "height": args.height,
        "width": args.width,
        "num_inference_steps": args.steps,
        "guidance_scale": args.guidance,
        "max_sequence_length": DEFAULTS.text_length,
    }


def claims(video: Sample, prompt: str) -> dict[str, list[bool]]:
    """The reader's verdicts."""
    return score(to_bytes(video.video), prompt)


def adherence(verdicts: list[dict[str, list[bool]]]) -> dict[str, float]:
    """Share of true claims, by kind and over all."""
    kinds = {kind: [v for one in verdicts for v in one[kind]] for kind in verdicts[0]}
    shares = {kind: mean(values) for kind, values in kinds.items()}
    return shares | {"all": mean(v for values in kinds.values() for v in values)}


def read_plan(text: str) -> tuple[str, Plan | Auto]:
    """A plan and its name, from a path, `auto` or `auto:DENSITY`."""
    kind, _, density = text.partition(":")
    if kind == "auto":
        return text, Auto(float(density)) if density else Auto()
    return Path(text).stem, Plan.load(text)


def timings(
    pipe: Any, plans: list[tuple[str, Plan | Auto]], prompt: str, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Denoising seconds of dense attention and of every plan, `args.repeats` times in turns."""
    arms = ["dense", *(name for name, _ in plans)]
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for turn in tqdm(range(args.repeats), desc="timing", unit="turn"):
        seconds["dense"].append(sample(pipe, prompt, turn, "dense", **options(args)).seconds)
        for name, plan in plans:
            with sparse(pipe, plan, backend=args.backend):
                run = sample(pipe, prompt, turn, "sparse", **options(args))
            seconds[name].append(run.seconds)
    middle = {arm: median(values) for arm, values in seconds.items()}
    return [
        {
            "dense_seconds": middle["dense"], "sparse_seconds": middle[name],
            "speedup": middle["dense"] / middle[name],
            "all_seconds": {"dense": seconds["dense"], "sparse": seconds[name]},
        }
        for name, _ in plans
    ]  # fmt: skip


def evaluate(
    pipe: Any,
    name: str,
    plan: Plan | Auto,
    prompts: list[str],
    dense: list[Sample],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """One plan against the dense samples."""
    scores, verdicts, runs = [], [], []
    with sparse(pipe, plan, backend=args.backend):
        for seed, prompt in enumerate(tqdm(prompts, desc=name, unit="video")):
            run = sample(pipe, prompt, seed, "sparse", **options(args))
            other = dense[seed].video
            scores.append((psnr(run.video, other), ssim(run.video, other)))
            verdicts.append(claims(run, prompt))
            runs.append(run)
            if args.videos and seed < 8:
                pair = side_by_side([other, run.video], ["dense", f"{name} {scores[-1][0]:.1f} dB"])
                args.videos.mkdir(parents=True, exist_ok=True)
                write_mp4(args.videos / f"{name}-{seed}.mp4", pair, DEFAULTS.fps)
        state = summary(pipe)
    phases = runs[0].phases
    thin = [use for use in phases if use != DENSE]
    seconds = [(d.seconds, s.seconds) for d, s in zip(dense, runs, strict=True)]
    return {
        "plan": name,
        "grid": state.grid,
        "backend": state.backend,
        "fallbacks": list(state.fallbacks),
        "density": state.mean_density(thin),
        "mean_density": state.mean_density(phases),
        "sparse_steps": len(thin),
        "psnr_db": mean(s[0] for s in scores),
        "ssim": mean(s[1] for s in scores),
        "psnr_db_each": [round(s[0], 2) for s in scores],
        "ssim_each": [round(s[1], 4) for s in scores],
        "adherence": adherence(verdicts),
        "dense_seconds_each": [s[0] for s in seconds],
        "sparse_seconds_each": [s[1] for s in seconds],
    }


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The arguments that benchmarks of whole runs share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", help="pipeline folder; the bundled model by default")
    parser.add_argument("--backend")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--prompt-seed", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=0, help="timed turns on the first prompt")
    parser.add_argument("--steps", type=int, default=DEFAULTS.steps)
    parser.add_argument("--guidance", type=float, default=DEFAULTS.guidance)
    parser.add_argument("--frames", type=int, default=DEFAULTS.frames)
    parser.add_argument("--height", type=int, default=DEFAULTS.height)
    parser.add_argument("--width", type=int, default=DEFAULTS.width)
    parser.add_argument("--videos", type=Path, help="folder for side-by-side videos")
    parser.add_argument("--out", type=Path, required=True)
    return parser


def run_plans(
    plans: list[tuple[str, Plan | Auto]],
    pipe: Any,
    args: argparse.Namespace,
    conclude: Callable[[list[dict[str, Any]]], dict[str, Any]] = lambda rows: {},
) -> None:
    """Runs every plan, prints a table, saves the JSON with what `conclude` makes of the rows."""
    prompts = [canonical(s) for s in held_out_prompts(args.prompts, args.prompt_seed)]
    times = timings(pipe, plans, prompts[0], args) if args.repeats else [{}] * len(plans)
    dense = [
        sample(pipe, prompt, seed, "dense", **options(args))
        for seed, prompt in enumerate(tqdm(prompts, desc="dense", unit="video"))
    ]
    verdicts = [claims(run, prompt) for run, prompt in zip(dense, prompts, strict=True)]
    print("dense adherence", {k: round(v, 3) for k, v in adherence(verdicts).items()}, flush=True)
    rows = []
    for (name, plan), time in zip(plans, times, strict=True):
        row = evaluate(pipe, name, plan, prompts, dense, args) | time
        rows.append(row)
        print(
            f"{row['plan']:24} density {row['density']:.3f} sparse steps {row['sparse_steps']:2}"
            f"/{args.steps} PSNR {row['psnr_db']:6.2f} dB SSIM {row['ssim']:.4f} "
            f"adherence {row['adherence']['all']:.3f} speed-up {row.get('speedup', np.nan):.2f}",
            flush=True,
        )
        save(
            args.out,
            rows,
            **conclude(rows),
            dense_adherence=adherence(verdicts),
            prompts=prompts,
            steps=args.steps,
            guidance=args.guidance,
            size=[args.frames, args.height, args.width],
        )


def main() -> None:
    """Runs the plans of the command line."""
    parser = arguments(__doc__)
    parser.add_argument("--plan", nargs="*", default=[str(FOLDER / "plan.json")])
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    run_plans(
        [read_plan(text) for text in args.plan],
        load_pipeline(args.model, dtype=torch.float32),
        args,
    )


if __name__ == "__main__":
    main()
