"""Checks dense videos of the bundled model against their prompts, at several sizes.

python -m benchmarks.prompts --prompts 64 --events 24 --out mini-prompts.json

For every size: the share of claims that `tools.mini.reader` finds true, by kind, and a sheet of
frames. Prompts are held out of the training: `plain` prompts (one or two things, still or straight)
and `events` (groups, two-leg motions, relations).
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import WanPipeline

from ajour.pipelines.bundled import FOLDER
from ajour.pipelines.video import to_bytes
from benchmarks.record import save
from tools.mini import captions, model, plots, prompts, reader
from tools.mini.clips import TEXT_LENGTH, statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZES = ("17x128x128", "49x256x256", "33x192x320", "81x480x832", "97x512x512")
BATCH_TOKENS = 65_536
"""Video tokens of the prompts that run together."""


@torch.no_grad()
def videos(
    pipe: WanPipeline,
    texts: list[str],
    size: tuple[int, int, int],
    steps: int,
    guidance: float,
    seed: int,
) -> NDArray[np.uint8]:
    """Runs prompts together.

    Args:
        pipe: Pipeline, with a VAE in fp32.
        texts: N prompts.
        size: (frames, height, width).
        steps: Denoising steps.
        guidance: Classifier-free guidance scale.
        seed: Prompt i starts from noise of seed + i.

    Returns:
        (N,F,H,W,3) uint8.
    """
    device = pipe.transformer.device
    frames, height, width = size
    latents = pipe(
        texts,
        num_frames=frames,
        height=height,
        width=width,
        num_inference_steps=steps,
        guidance_scale=guidance,
        max_sequence_length=TEXT_LENGTH,
        generator=[torch.Generator().manual_seed(seed + i) for i in range(len(texts))],
        output_type="latent",
    ).frames
    mean, std = statistics(pipe.vae, device)
    decoded = []
    for one in latents.float().split(1):
        video = model.decode_video(pipe.vae, one * std + mean)[0].permute(1, 2, 3, 0)
        decoded.append(to_bytes(video.add(1).div(2).cpu().numpy()))
    return np.stack(decoded)


def evaluate(
    pipe: WanPipeline,
    texts: list[str],
    size: tuple[int, int, int],
    guidance: float,
    args: argparse.Namespace,
    sheet: Path | None,
) -> dict[str, object]:
    """Shares of true claims over prompts at one size; draws a sheet of the first videos."""
    frames, height, width = size
    tokens = (1 + (frames - 1) // 4) * (height // 16) * (width // 16)
    batch = max(1, BATCH_TOKENS // tokens)
    start = time.monotonic()
    pending = []
    rows: list[torch.Tensor] = []
    with ThreadPoolExecutor() as pool:
        for begin in range(0, len(texts), batch):
            part = texts[begin : begin + batch]
            films = videos(pipe, part, size, args.steps, guidance, args.seed + begin)
            pending += [
                pool.submit(reader.score, film, text)
                for film, text in zip(films, part, strict=True)
            ]
            for film in films[: max(0, args.rows - len(rows))]:
                rows.append(torch.from_numpy(film).permute(3, 0, 1, 2) / 127.5 - 1)
        verdicts = [job.result() for job in pending]
    wrong = [
        {"prompt": text, "wrong": [kind for kind, seen in found.items() if not all(seen)]}
        for text, found in zip(texts, verdicts, strict=True)
        if not all(all(seen) for seen in found.values())
    ]
    if sheet is not None:
        plots.contact_sheet(rows, texts[: len(rows)], sheet)
    two = [found for found in verdicts if len(found["colour"]) > 1]
    return {
        "size": "x".join(map(str, size)),
        "prompts": len(texts),
        "claims": reader.summary(verdicts),
        "two_things": reader.summary(two)["videos"] if two else None,
        "wrong": wrong,
        "seconds": round(time.monotonic() - start, 1),
    }


def main() -> None:
    """Reads the command line, runs all sizes and writes a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", type=Path, default=FOLDER / "model", help="pipeline folder (default: bundled)"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file; sheets go beside it")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), help="FRAMESxHEIGHTxWIDTH")
    parser.add_argument("--prompts", type=int, default=64, help="plain prompts at every size")
    parser.add_argument("--events", type=int, default=0, help="prompts with events besides")
    parser.add_argument("--prompt-seed", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0, help="of the first prompt's noise")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, nargs="+", default=[3.0])
    parser.add_argument("--flow-shift", type=float, nargs="+", default=[model.FLOW_SHIFT])
    parser.add_argument("--rows", type=int, default=8, help="videos in a sheet")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    pipe = WanPipeline.from_pretrained(args.model, dtype=dtype).to(device)
    pipe.vae.float()
    pipe.set_progress_bar_config(disable=True)
    sets = {
        "plain": prompts.held_out_prompts(args.prompts, args.prompt_seed),
        "events": prompts.held_out_events(args.events, args.prompt_seed),
    }
    texts = {kind: [captions.canonical(s) for s in found] for kind, found in sets.items() if found}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    drawn: set[Path] = set()
    results = []
    for name, kind, guidance, shift in product(args.sizes, texts, args.guidance, args.flow_shift):
        frames, height, width = map(int, name.split("x"))
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, flow_shift=shift)
        sheet = args.out.with_name(f"{args.out.stem}-{kind}-{name}.png")
        row = evaluate(
            pipe,
            texts[kind],
            (frames, height, width),
            guidance,
            args,
            None if sheet in drawn else sheet,
        )
        drawn.add(sheet)
        row |= {"kind": kind, "guidance": guidance, "flow_shift": shift}
        results.append(row)
        print(json.dumps({k: v for k, v in row.items() if k != "wrong"}), flush=True)
        save(args.out, results, steps=args.steps, dtype=str(dtype))


if __name__ == "__main__":
    main()
