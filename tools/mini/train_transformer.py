"""Trains the mini pipeline's transformer and text encoder by flow matching, then exports it."""

from __future__ import annotations

import argparse
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from transformers import PreTrainedTokenizerFast

from tools.mini import captions, model
from tools.mini.clips import CAPTIONS_PER_SCENE, TEXT_LENGTH, Clips, tokenize
from tools.mini.train_vae import (
    Average,
    learning_rate_factor,
    restore_rng,
    rng_state,
    save_checkpoint,
    write_json,
)
from tools.mini.warm_start import start_from


@dataclass(frozen=True)
class Share:
    """What a clip size takes of the time.

    Attributes:
        clips: Most clips of this size that are kept.
        early: Share of the time in the early part of the training.
        late: Share of the time after it.
    """

    clips: int
    early: float
    late: float


SIZES = {
    (17, 128, 128): Share(30_000, 0.26, 0.10),
    (25, 192, 192): Share(10_000, 0.10, 0.06),
    (1, 256, 256): Share(8_000, 0.05, 0.01),
    (49, 256, 256): Share(12_000, 0.30, 0.10),
    (33, 192, 320): Share(6_000, 0.15, 0.04),
    (25, 320, 192): Share(6_000, 0.14, 0.03),
    (81, 240, 416): Share(4_000, 0.0, 0.12),
    (1, 480, 832): Share(8_000, 0.0, 0.05),
    (17, 480, 832): Share(6_000, 0.0, 0.18),
    (17, 512, 512): Share(3_000, 0.0, 0.04),
    (81, 480, 832): Share(3_000, 0.0, 0.22),
    (97, 512, 512): Share(1_500, 0.0, 0.05),
}
"""Clip sizes (frames, height, width): small ones teach the words first, cheaply.

Few frames of a large picture teach where things stand in it, at a tenth of a whole clip's cost.
"""

TINY_SIZES = {(1, 32, 32): Share(4, 1.0, 0.1), (5, 32, 64): Share(4, 0.0, 0.9)}
EARLY_PART = 0.35
ENCODING_PART = 0.15
"""Share of the time in which fresh clips are rendered and encoded."""

FIRST_CLIPS = 64
"""Clips of a size that are encoded before its first step."""

BATCH_TOKENS = 40 * 3328
PEAK_LR = 1e-3
LONG_TEXT_LENGTH = 512
THING_WEIGHT = 3.0
"""Extra weight in the loss of latent cells that show a thing."""


def noise_levels(count: int, tokens: int, device: torch.device) -> torch.Tensor:
    """Samples noise levels in (0,1), shifted like the sampler's, and more for longer clips.

    Two fifths are logit-normal, two fifths uniform, and a fifth uniform in the noisiest 40 % before
    the shift, where places and motions are decided. In a longer clip a thing is seen through more
    noise, so the shift grows with the square root of the tokens (Esser et al. 2024,
    arXiv:2403.03206), at most to twice `model.FLOW_SHIFT`.
    """
    shift = model.FLOW_SHIFT * min(2.0, max(1.0, math.sqrt(tokens / 3328)))
    bell = torch.randn(count, device=device).sigmoid()
    flat = torch.rand(count, device=device)
    kind = torch.rand(count, device=device)
    s = torch.where(kind < 0.4, bell, torch.where(kind < 0.8, flat, 0.6 + 0.4 * flat))
    return shift * s / (1 + (shift - 1) * s)


def flow_loss(
    transformer: torch.nn.Module,
    text_encoder: torch.nn.Module,
    clips: Clips,
    empty: tuple[torch.Tensor, torch.Tensor],
    batch: int,
    text_length: int,
) -> torch.Tensor:
    """Flow-matching loss of one random batch: the model predicts noise minus data.

    Cells that show a thing weigh more (`THING_WEIGHT`): they are what prompts speak of, and few.

    Args:
        transformer: The denoiser.
        text_encoder: The text encoder.
        clips: Encoded clips of one size.
        empty: Ids and mask (1,64) of the empty prompt, which replaces a tenth of the captions.
        batch: Number of clips.
        text_length: Length that the text embeddings are zero-padded to.

    Returns:
        Scalar loss.
    """
    device = clips.latents.device
    rows = torch.randint(len(clips), (batch,), device=device)
    which = torch.randint(CAPTIONS_PER_SCENE, (batch,), device=device)
    drop = (torch.rand(batch, device=device) < 0.1)[:, None]
    ids = torch.where(drop, empty[0], clips.ids[rows, which])
    mask = torch.where(drop, empty[1], clips.mask[rows, which])
    clean = clips.latents[rows].float()
    noise = torch.randn_like(clean)
    level = noise_levels(batch, clips.tokens, device)
    mixed = torch.lerp(clean, noise, level.view(-1, 1, 1, 1, 1))
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        text = model.embed_prompts(text_encoder, ids, mask, text_length)
        output = transformer(mixed, level * 1000, text, return_dict=False)[0]
    error = (output.float() - (noise - clean)).square().mean(1)
    weight = 1 + THING_WEIGHT * clips.things[rows]
    return (weight * error).mean() / weight.mean()


class Clock:
    """Deals out time: names the size that is furthest behind its share.

    The first step at a size is not booked: it compiles, and would starve the size afterwards.

    Args:
        shares: Share of each size in the early and in the late part.
    """

    def __init__(self, shares: dict[tuple[int, int, int], Share]) -> None:
        self.shares = shares
        self.spent = [dict.fromkeys(shares, 0.0) for _ in range(2)]
        self.begun: set[tuple[int, int, int]] = set()

    def next(self, early: bool) -> tuple[int, int, int]:
        """The size whose turn it is; sizes that had no time come first."""
        spent = self.spent[0 if early else 1]
        total = sum(spent.values())

        def behind(size: tuple[int, int, int]) -> float:
            share = self.shares[size].early if early else self.shares[size].late
            return share * total - spent[size] if share else -math.inf

        untouched = [s for s in self.shares if not spent[s] and behind(s) > -math.inf]
        return untouched[0] if untouched else max(self.shares, key=behind)

    def count(self, early: bool, size: tuple[int, int, int], seconds: float) -> None:
        """Books the time that a step at a size took, unless it was the first."""
        if size in self.begun:
            self.spent[0 if early else 1][size] += seconds
        self.begun.add(size)


def train(args: argparse.Namespace) -> None:
    """Trains on a flow of fresh clips, checkpoints and exports."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    if args.cudnn_attention:
        torch.backends.cuda.enable_flash_sdp(False)
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    nested = args.vae / "vae"
    vae = AutoencoderKLWan.from_pretrained(nested if nested.is_dir() else args.vae)
    vae = vae.to(device).eval().requires_grad_(False)
    rng = random.Random(args.seed)
    transformer = model.build_transformer()
    text_encoder = model.build_text_encoder()
    step, before = 0, 0.0
    curve: list[dict[str, object]] = []
    runs: list[dict[str, object]] = []
    if args.resume:
        state = torch.load(out / "checkpoint.pt", map_location=device, weights_only=False)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(out / "tokenizer")
        transformer.load_state_dict(state["transformer"])
        text_encoder.load_state_dict(state["text_encoder"])
        restore_rng(rng, state["rng"])
        step, before, curve = state["step"], state["elapsed"], state["curve"]
        runs = state["runs"]
    else:
        if args.init is None:
            corpus = captions.corpus(500 if args.tiny else 20_000, args.seed)
            tokenizer = model.build_tokenizer(corpus)
        else:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(args.init / "tokenizer")
            start_from(args.init, transformer, text_encoder)
        tokenizer.save_pretrained(out / "tokenizer")
    transformer = transformer.to(device).train()
    text_encoder = text_encoder.to(device).train()
    parameters = [*transformer.parameters(), *text_encoder.parameters()]
    average = Average([transformer, text_encoder], 0.9995)
    optimizer = torch.optim.AdamW(
        parameters,
        lr=args.peak_lr,
        betas=(0.9, 0.99),
        weight_decay=0.01,
        fused=device.type == "cuda",
    )
    if args.resume:
        average.mean = state["average"]
        optimizer.load_state_dict(state["optimizer"])
    total = args.total_seconds or before + args.seconds

    sizes = TINY_SIZES if args.tiny else SIZES
    data = {size: Clips(vae, tokenizer, size, share.clips) for size, share in sizes.items()}
    empty = tokenize(tokenizer, [""], device)
    if device.type == "cuda" and args.compile:
        torch._dynamo.config.suppress_errors = True  # what does not compile runs eager
        transformer.compile_repeated_blocks(dynamic=True)

    def checkpoint(elapsed: float) -> None:
        save_checkpoint(
            out / "checkpoint.pt",
            {
                "transformer": transformer.state_dict(),
                "text_encoder": text_encoder.state_dict(),
                "average": average.mean,
                "optimizer": optimizer.state_dict(),
                "rng": rng_state(rng),
                "step": step,
                "elapsed": elapsed,
                "curve": curve,
                "runs": runs,
            },
        )

    recent: dict[tuple[int, int, int], list[torch.Tensor]] = {size: [] for size in sizes}
    training, encoding = Clock(sizes), Clock(sizes)
    start = said = saved = time.monotonic()
    first_step = said_step = step
    samples = all_samples = 0
    encoded = 0.0
    while (now := time.monotonic()) - start < args.seconds:
        elapsed = before + now - start
        early = elapsed < args.early_part * total
        size = training.next(early)
        enough = min(FIRST_CLIPS, sizes[size].clips // 2)
        fresh = None if len(data[size]) >= enough else size
        if fresh is None and encoded < ENCODING_PART * (now - start):
            fresh = encoding.next(early)
        if fresh is not None:
            data[fresh].add(rng)
            if device.type == "cuda":
                torch.cuda.synchronize()
            took = time.monotonic() - now
            encoded += took
            encoding.count(early, fresh, took)
            continue
        for group in optimizer.param_groups:
            group["lr"] = args.peak_lr * learning_rate_factor(elapsed / total)
        text_length = TEXT_LENGTH if rng.random() < 0.8 else LONG_TEXT_LENGTH
        batch = 2 if args.tiny else max(1, args.batch_tokens // data[size].tokens)
        loss = flow_loss(transformer, text_encoder, data[size], empty, batch, text_length)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        if torch.isfinite(norm):
            optimizer.step()
        step += 1
        samples += batch
        all_samples += batch
        average.update(step)
        recent[size].append(loss.detach())
        training.count(early, size, time.monotonic() - now)
        if now - said > args.say_every:
            rate, speed = (step - said_step) / (now - said), samples / (now - said)
            line = f"{elapsed:6.0f}s step {step} {rate:.2f} steps/s {speed:.0f} samples/s loss"
            for name, losses in recent.items():
                if losses:
                    value = torch.stack(losses).mean().item()
                    label = "x".join(map(str, name))
                    curve.append({"seconds": elapsed, "step": step, "size": label, "loss": value})
                    line += f" {label} {value:.4f} ({data[name].made})"
                    losses.clear()
            print(line, flush=True)
            said, said_step, samples = now, step, 0
        if now - saved > 60:
            checkpoint(elapsed)
            saved = now
    elapsed = before + time.monotonic() - start
    took = elapsed - before
    counts = {"x".join(map(str, size)): clips.made for size, clips in data.items()}
    rates = {"steps_per_s": (step - first_step) / took, "samples_per_s": all_samples / took}
    runs.append({"seconds": took, "encoding_seconds": encoded, "clips": counts} | rates)
    checkpoint(elapsed)
    log = {"kind": "transformer", "seconds": elapsed, "steps": step, "runs": runs, "curve": curve}
    log["parameters"] = {
        "transformer": model.count_parameters(transformer),
        "text_encoder": model.count_parameters(text_encoder),
    }
    write_json(out / "log.json", log)
    transformer, text_encoder = model.build_transformer(), model.build_text_encoder()
    average.copy_to([transformer, text_encoder])
    model.assemble(vae, text_encoder, tokenizer, transformer, out / "export")


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True, help="output folder of train_vae")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and logs")
    parser.add_argument("--seconds", type=float, required=True, help="time of this run")
    parser.add_argument("--total-seconds", type=float, help="time of all runs together")
    parser.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS)
    parser.add_argument("--peak-lr", type=float, default=PEAK_LR)
    parser.add_argument(
        "--early-part",
        type=float,
        default=EARLY_PART,
        help="share of the time for small sizes only; 0 to go on at the sizes that people run",
    )
    parser.add_argument("--seed", type=int, default=0)
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--resume", action="store_true", help="continue from OUT/checkpoint.pt")
    begin.add_argument("--init", type=Path, help="start from the weights of a pipeline folder")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument(
        "--cudnn-attention", action="store_true", help="attention by cuDNN; which is faster depends"
    )
    parser.add_argument("--say-every", type=float, default=10.0, help="seconds between log lines")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
