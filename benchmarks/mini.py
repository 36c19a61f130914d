r"""The bundled model under plans: speed, PSNR, SSIM and prompt adherence on held-out prompts.

Every plan is compared with dense attention at the same seeds in one run. Adherence is the share of
true claims (such as colour, texture, start place and motion of every thing of the caption) by
`tools.mini.reader`.

    python -m benchmarks.mini --prompts 16 --repeats 5 --plan pipelines/mini/plan.json auto \
        --fewer-steps 6 8 10 --out benchmarks/results/mini-cpu.json

Quality is over all prompts, speed-up over `--repeats` turns of dense attention
and every plan on the first one.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from ajour import Auto, Plan, disable, enable, summary
from ajour.pipelines.banding import banding
from ajour.pipelines.bundled import FOLDER, Defaults, load_pipeline
from ajour.pipelines.enable import resolve_plan
from ajour.pipelines.generate import sample
from ajour.pipelines.quality import BEST_DB, perceptual, psnr, ssim
from ajour.pipelines.video import side_by_side, to_bytes, write_mp4
from ajour.schedule import DENSE, REUSE
from ajour.search.verify.flicker import warp_error
from benchmarks.record import save
from tools.mini import reader
from tools.mini.captions import canonical
from tools.mini.prompts import held_out_prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ajour.pipelines.generate import Sample

DEFAULTS = Defaults()


def options(args: argparse.Namespace, steps: int | None = None) -> dict[str, Any]:
    """Arguments of the pipeline's call, with as many steps as all arms unless given."""
    return {
        "num_frames": args.frames,
        "height": args.height,
        "width": args.width,
        "num_inference_steps": steps or args.steps,
        "guidance_scale": args.guidance,
        "max_sequence_length": DEFAULTS.text_length,
    }


def claims(video: Sample, prompt: str) -> dict[str, list[bool]]:
    """The reader's verdicts."""
    return reader.score(to_bytes(video.video), prompt)


class Arm(NamedTuple):
    """A way to run a pipeline: under a plan, with a cache of diffusers, or with fewer steps."""

    name: str
    plan: Plan | Auto | None = None
    cache: Any = None
    steps: int | None = None


def fewer_steps(args: argparse.Namespace) -> list[Arm]:
    """Dense runs of fewer steps: the simplest way to be faster, compared like all others."""
    return [Arm(f"dense, {steps} steps", steps=steps) for steps in args.fewer_steps]


@contextmanager
def running(pipe: Any, arm: Arm, backend: str | None) -> Iterator[None]:
    """The pipeline runs an arm within the block."""
    if arm.cache is not None:
        pipe.transformer.enable_cache(arm.cache)
    if arm.plan is not None:
        enable(pipe, arm.plan, backend=backend)
    try:
        yield
    finally:
        if arm.plan is not None:
            disable(pipe)
        if arm.cache is not None:
            pipe.transformer.disable_cache()


def read_plan(text: str) -> Arm:
    """An arm from the path of a plan, `auto` or `auto:SPEED`."""
    kind, _, speed = text.partition(":")
    if kind == "auto":
        return Arm(text, resolve_plan("auto", speed=speed or None))
    return Arm(Path(text).stem, Plan.load(text))


def timings(
    pipe: Any, arms: list[Arm], prompt: str, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Denoising seconds of dense attention and of every arm, `args.repeats` times in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ("dense", *(arm.name for arm in arms))}
    for turn in tqdm(range(args.repeats), desc="timing", unit="turn"):
        seconds["dense"].append(sample(pipe, prompt, turn, "dense", **options(args)).seconds)
        for arm in arms:
            with running(pipe, arm, args.backend):
                run = sample(pipe, prompt, turn, arm.name, **options(args, arm.steps))
            seconds[arm.name].append(run.seconds)
    middle = {name: median(values) for name, values in seconds.items()}
    return [
        {
            "dense_seconds": middle["dense"], "sparse_seconds": middle[name],
            "speedup": middle["dense"] / middle[name],
            "all_seconds": {"dense": seconds["dense"], "sparse": seconds[name]},
        }
        for name in seconds if name != "dense"
    ]  # fmt: skip


class Scores(NamedTuple):
    """A video against the dense video; `warp` and `dense_warp` are temporal warp errors."""

    psnr_db: float
    ssim: float
    perceptual: float
    banding: float
    warp: float
    dense_warp: float


def scores_of(video: Any, dense: Any) -> Scores:
    """The scores of a video (F,H,W,3) in [0,1]."""
    decibels = min(psnr(video, dense), BEST_DB)
    likeness = ssim(video, dense), perceptual(video, dense), banding(video, dense)
    first, second = to_bytes(video), to_bytes(dense)
    return Scores(decibels, *likeness, warp_error(first, second), warp_error(second))


def evaluate(
    pipe: Any, arm: Arm, prompts: list[str], dense: list[Sample], args: argparse.Namespace
) -> dict[str, Any]:
    """One arm against the dense samples."""
    jobs, checks, runs = [], [], []
    with ThreadPoolExecutor() as pool, running(pipe, arm, args.backend):
        for seed, prompt in enumerate(tqdm(prompts, desc=arm.name, unit="video")):
            run = sample(pipe, prompt, seed, arm.name, **options(args, arm.steps))
            other = dense[seed].video
            jobs.append(pool.submit(scores_of, run.video, other))
            checks.append(pool.submit(claims, run, prompt))
            runs.append(run)
            if args.videos and seed < 8:
                labels = ["dense", f"{arm.name} {psnr(run.video, other):.1f} dB"]
                args.videos.mkdir(parents=True, exist_ok=True)
                pair = side_by_side([other, run.video], labels)
                write_mp4(args.videos / f"{arm.name}-{seed}.mp4", pair, DEFAULTS.fps)
        facts = {} if arm.plan is None else plan_facts(pipe, runs[0].phases)
        scores, verdicts = [job.result() for job in jobs], [check.result() for check in checks]
    seconds = [(d.seconds, s.seconds) for d, s in zip(dense, runs, strict=True)]
    return {
        "plan": arm.name,
        **facts,
        "psnr_db": mean(s.psnr_db for s in scores),
        "ssim": mean(s.ssim for s in scores),
        "perceptual": mean(s.perceptual for s in scores),
        "banding": mean(s.banding for s in scores),
        "flicker": mean(s.warp for s in scores) / max(mean(s.dense_warp for s in scores), 1e-9),
        "psnr_db_each": [round(s.psnr_db, 2) for s in scores],
        "ssim_each": [round(s.ssim, 4) for s in scores],
        "adherence": reader.summary(verdicts),
        "dense_seconds_each": [s[0] for s in seconds],
        "sparse_seconds_each": [s[1] for s in seconds],
    }


def plan_facts(pipe: Any, phases: tuple[str, ...]) -> dict[str, Any]:
    """What an enabled pipeline ran, given what ran in each step."""
    state = summary(pipe)
    thin = [use for use in phases if use not in (DENSE, REUSE)]
    return {
        "grid": state.grid,
        "backend": state.backend,
        "fallbacks": list(state.fallbacks),
        "density": state.mean_density(thin),
        "mean_density": state.mean_density(phases),
        "sparse_steps": len(thin),
        "reused_steps": phases.count(REUSE),
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
    parser.add_argument(
        "--fewer-steps", type=int, nargs="*", default=[], help="also dense runs of so many steps"
    )
    parser.add_argument(
        "--dtype", default="float32", help="of the transformer and the text encoder, not the VAE"
    )
    parser.add_argument("--videos", type=Path, help="folder for side-by-side videos")
    parser.add_argument("--out", type=Path, required=True)
    return parser


def load(args: argparse.Namespace) -> Any:
    """The pipeline of the command line, with a VAE in float32."""
    torch.backends.cudnn.benchmark = True
    pipe = load_pipeline(args.model, dtype=torch.float32)
    for part in (pipe.transformer, pipe.text_encoder):
        part.to(getattr(torch, args.dtype))
    return pipe


def run_arms(
    arms: list[Arm],
    pipe: Any,
    args: argparse.Namespace,
    conclude: Callable[[list[dict[str, Any]]], dict[str, Any]] = lambda rows: {},
) -> None:
    """Runs every arm, prints a table, saves the JSON with what `conclude` makes of the rows."""
    prompts = [canonical(s) for s in held_out_prompts(args.prompts, args.prompt_seed)]
    times = timings(pipe, arms, prompts[0], args) if args.repeats else [{}] * len(arms)
    dense = [
        sample(pipe, prompt, seed, "dense", **options(args))
        for seed, prompt in enumerate(tqdm(prompts, desc="dense", unit="video"))
    ]
    verdicts = [claims(run, prompt) for run, prompt in zip(dense, prompts, strict=True)]
    adherence = reader.summary(verdicts)
    shares = {kind: round(share, 3) for kind, share in adherence.items() if share is not None}
    print("dense adherence", shares, flush=True)
    rows = []
    for arm, time in zip(arms, times, strict=True):
        row = evaluate(pipe, arm, prompts, dense, args) | time
        rows.append(row)
        print(
            f"{row['plan']:24} PSNR {row['psnr_db']:6.2f} dB SSIM {row['ssim']:.4f} "
            f"adherence {row['adherence']['all']:.3f} speed-up {row.get('speedup', np.nan):.2f}",
            flush=True,
        )
        save(
            args.out,
            rows,
            **conclude(rows),
            dense_adherence=adherence,
            prompts=prompts,
            steps=args.steps,
            guidance=args.guidance,
            dtype=args.dtype,
            size=[args.frames, args.height, args.width],
        )


def main() -> None:
    """Runs the plans of the command line."""
    parser = arguments(__doc__)
    parser.add_argument("--plan", nargs="*", default=[str(FOLDER / "plan.json")])
    args = parser.parse_args()
    run_arms([*map(read_plan, args.plan), *fewer_steps(args)], load(args), args)


if __name__ == "__main__":
    main()
