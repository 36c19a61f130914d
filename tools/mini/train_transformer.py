"""Trains the mini pipeline's transformer and text encoder by flow matching, then exports it."""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanPipeline
from transformers import PreTrainedTokenizerFast

from tools.mini import captions, model, plots, scenes
from tools.mini.prompts import held_out_prompts
from tools.mini.train_vae import (
    Average,
    learning_rate_factor,
    restore_rng,
    rng_state,
    save_checkpoint,
    write_json,
)


@dataclass(frozen=True)
class Share:
    """What one clip size takes of each resource.

    Attributes:
        encoding: Share of the encoding time and of the number of clips.
        early: Share of the steps in the early part of the training.
        late: Share of the steps after it.
    """

    encoding: float
    early: float
    late: float


SIZES = {
    (1, 256, 256): Share(0.1, 0.4, 0.1),
    (13, 256, 256): Share(0.2, 0.6, 0.1),
    (49, 256, 256): Share(0.45, 0.0, 0.5),
    (33, 192, 320): Share(0.13, 0.0, 0.15),
    (25, 320, 192): Share(0.12, 0.0, 0.15),
}
"""Clip sizes (frames, height, width): pictures and short clips teach the words first, cheaply."""

TINY_SIZES = {(1, 32, 32): Share(0.5, 1.0, 0.1), (5, 32, 64): Share(0.5, 0.0, 0.9)}
EARLY_PART = 0.3
BATCH_TOKENS = 40 * 3328
PEAK_LR = 1e-3
CAPTIONS_PER_SCENE = 4
TEXT_LENGTH = 64
LONG_TEXT_LENGTH = 512


@dataclass
class Clips:
    """Encoded clips of one size.

    Attributes:
        latents: (N,16,T,h,w), bf16, normalised by the VAE's statistics.
        ids: (N,captions,64) token ids.
        mask: (N,captions,64) attention masks.
    """

    latents: torch.Tensor
    ids: torch.Tensor
    mask: torch.Tensor


def statistics(vae: AutoencoderKLWan, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Latent mean and standard deviation from the VAE's config, each (1,16,1,1,1)."""
    pair = (vae.config.latents_mean, vae.config.latents_std)
    mean, std = (torch.tensor(v, device=device).view(1, -1, 1, 1, 1) for v in pair)
    return mean, std


@torch.no_grad()
def encode_clips(
    vae: AutoencoderKLWan,
    tokenizer: PreTrainedTokenizerFast,
    rng: random.Random,
    size: tuple[int, int, int],
    seconds: float,
    most: int,
) -> Clips:
    """Renders, encodes and captions fresh training scenes for a given time.

    Args:
        vae: Trained VAE on the target device.
        tokenizer: Tokenizer of the captions.
        rng: Source of scenes and captions.
        size: (frames, height, width).
        seconds: Wall-clock budget; at least one batch is encoded.
        most: Greatest number of clips.

    Returns:
        The clips, on the VAE's device.
    """
    device = next(vae.parameters()).device
    mean, std = statistics(vae, device)
    latents: list[torch.Tensor] = []
    texts: list[str] = []
    batch = min(16, most)
    start = time.monotonic()
    while len(latents) * batch < most and (not latents or time.monotonic() - start < seconds):
        picked = [scenes.sample_scene(rng) for _ in range(batch)]
        video = scenes.render(picked, *size, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            moments = model.encode_moments(vae, video)
        latents.append(((moments[:, :16].float() - mean) / std).bfloat16())
        texts += [captions.caption(s, rng) for s in picked for _ in range(CAPTIONS_PER_SCENE)]
    ids, mask = tokenize(tokenizer, texts, device)
    shape = (-1, CAPTIONS_PER_SCENE, TEXT_LENGTH)
    clips = Clips(torch.cat(latents), ids.view(shape), mask.view(shape))
    took = time.monotonic() - start
    print(f"encoded {len(clips.latents)} clips of {size} in {took:.0f} s", flush=True)
    return clips


def tokenize(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokenises captions to (N,64) ids and attention mask."""
    tokens = tokenizer(
        texts, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt"
    )
    return tokens.input_ids.to(device), tokens.attention_mask.to(device)


def noise_levels(count: int, device: torch.device) -> torch.Tensor:
    """Samples noise levels in (0,1), shifted like the sampler's.

    A third is logit-normal, a third uniform, and a third uniform in the noisiest 40 % before the
    shift, where places and motions are decided.
    """
    bell = torch.randn(count, device=device).sigmoid()
    flat = torch.rand(count, device=device)
    kind = torch.randint(3, (count,), device=device)
    s = torch.where(kind == 0, bell, torch.where(kind == 1, flat, 0.6 + 0.4 * flat))
    return model.FLOW_SHIFT * s / (1 + (model.FLOW_SHIFT - 1) * s)


def flow_loss(
    transformer: torch.nn.Module,
    text_encoder: torch.nn.Module,
    clips: Clips,
    empty: tuple[torch.Tensor, torch.Tensor],
    batch: int,
    text_length: int,
) -> torch.Tensor:
    """Flow-matching loss of one random batch: the model predicts noise minus data.

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
    rows = torch.randint(len(clips.latents), (batch,), device=device)
    which = torch.randint(CAPTIONS_PER_SCENE, (batch,), device=device)
    drop = (torch.rand(batch, device=device) < 0.1)[:, None]
    ids = torch.where(drop, empty[0], clips.ids[rows, which])
    mask = torch.where(drop, empty[1], clips.mask[rows, which])
    clean = clips.latents[rows].float()
    noise = torch.randn_like(clean)
    level = noise_levels(batch, device)
    mixed = torch.lerp(clean, noise, level.view(-1, 1, 1, 1, 1))
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        text = model.embed_prompts(text_encoder, ids, mask, text_length)
        output = transformer(mixed, level * 1000, text, return_dict=False)[0]
    return (output.float() - (noise - clean)).square().mean()


def export(
    args: argparse.Namespace,
    vae: AutoencoderKLWan,
    tokenizer: PreTrainedTokenizerFast,
    average: Average,
    device: torch.device,
) -> None:
    """Writes the pipeline folder from the averaged weights and samples held-out prompts."""
    transformer, text_encoder = model.build_transformer(), model.build_text_encoder()
    modules: list[torch.nn.Module] = [transformer, text_encoder]
    average.copy_to(modules)
    folder = model.assemble(vae, text_encoder, tokenizer, transformer, args.out / "export")
    pipe = WanPipeline.from_pretrained(folder, dtype=torch.float32).to(device)
    pipe.set_progress_bar_config(disable=True)
    frames, height, width = (5, 32, 32) if args.tiny else (49, 256, 256)
    labels, rows = [], []
    for index, scene in enumerate(held_out_prompts(2 if args.tiny else 8, args.seed + 3)):
        labels.append(captions.canonical(scene))
        video = pipe(
            labels[-1],
            num_frames=frames,
            height=height,
            width=width,
            num_inference_steps=2 if args.tiny else 30,
            guidance_scale=3.0,
            generator=torch.Generator().manual_seed(index),
            output_type="np",
        ).frames[0]
        rows.append(torch.from_numpy(video).permute(3, 0, 1, 2) * 2 - 1)
    plots.contact_sheet(rows, labels, args.out / "samples.png")
    print(f"samples in {args.out / 'samples.png'}", flush=True)


def save_weights(path: Path, average: Average, seconds: float) -> None:
    """Writes the averaged weights in fp16: small enough to copy."""
    part = path.with_suffix(".part")
    torch.save({"seconds": seconds, "weights": [p.half().cpu() for p in average.mean]}, part)
    part.replace(path)


def load_weights(path: Path, modules: list[torch.nn.Module]) -> float:
    """Reads what `save_weights` wrote into the modules; returns the training time behind it."""
    state = torch.load(path, weights_only=True)
    parameters = [p for m in modules for p in m.parameters()]
    with torch.no_grad():
        for target, weight in zip(parameters, state["weights"], strict=True):
            target.copy_(weight)
    return float(state["seconds"])


def train(args: argparse.Namespace) -> None:
    """Encodes the data set, trains, checkpoints and exports."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    nested = args.vae / "vae"
    vae = AutoencoderKLWan.from_pretrained(nested if nested.is_dir() else args.vae)
    vae = vae.to(device).eval().requires_grad_(False)
    rng = random.Random(args.seed)
    transformer = model.build_transformer().to(device).train()
    text_encoder = model.build_text_encoder().to(device).train()
    parameters = [*transformer.parameters(), *text_encoder.parameters()]
    average = Average([transformer, text_encoder], 0.9995)
    optimizer = torch.optim.AdamW(
        parameters, lr=PEAK_LR, betas=(0.9, 0.99), weight_decay=0.01, fused=device.type == "cuda"
    )
    step, before = 0, 0.0
    curve: list[dict[str, object]] = []
    runs: list[dict[str, object]] = []
    if args.resume:
        state = torch.load(out / "checkpoint.pt", map_location=device, weights_only=False)
        transformer.load_state_dict(state["transformer"])
        text_encoder.load_state_dict(state["text_encoder"])
        average.mean = state["average"]
        optimizer.load_state_dict(state["optimizer"])
        restore_rng(rng, state["rng"])
        step, before, curve = state["step"], state["elapsed"], state["curve"]
        runs = state["runs"]
        tokenizer = PreTrainedTokenizerFast.from_pretrained(out / "tokenizer")
    else:
        tokenizer = model.build_tokenizer(captions.corpus(500 if args.tiny else 20_000, args.seed))
        tokenizer.save_pretrained(out / "tokenizer")
        if args.init is not None:
            before = load_weights(args.init, [transformer, text_encoder])
            average = Average([transformer, text_encoder], 0.9995)
            torch.manual_seed(args.seed + int(before))
            rng = random.Random(args.seed + int(before))
    total = args.total_seconds or before + args.seconds

    # A resumed run draws other scenes: the generator goes on from where it stopped.
    sizes = TINY_SIZES if args.tiny else SIZES
    data: dict[tuple[int, int, int], Clips] = {}
    for size, share in sizes.items():
        most = 4 if args.tiny else round(args.max_clips * share.encoding)
        seconds = args.encode_seconds * share.encoding
        data[size] = encode_clips(vae, tokenizer, rng, size, seconds, most)
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

    names = list(sizes)
    recent: dict[tuple[int, int, int], list[torch.Tensor]] = {size: [] for size in names}
    start = said = saved = time.monotonic()
    first_step = said_step = step
    samples = all_samples = 0
    while (now := time.monotonic()) - start < args.seconds:
        elapsed = before + now - start
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LR * learning_rate_factor(elapsed / total)
        early = elapsed < EARLY_PART * total
        size = rng.choices(names, [s.early if early else s.late for s in sizes.values()])[0]
        text_length = TEXT_LENGTH if rng.random() < 0.8 else LONG_TEXT_LENGTH
        shape = data[size].latents.shape
        tokens = shape[2] * shape[3] * shape[4] // 4
        batch = 2 if args.tiny else max(1, args.batch_tokens // tokens)
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
        if now - said > args.say_every:
            rate, speed = (step - said_step) / (now - said), samples / (now - said)
            line = f"{elapsed:6.0f}s step {step} {rate:.2f} steps/s {speed:.0f} samples/s loss"
            for name, losses in recent.items():
                if losses:
                    value = torch.stack(losses).mean().item()
                    label = "x".join(map(str, name))
                    curve.append({"seconds": elapsed, "step": step, "size": label, "loss": value})
                    line += f" {label} {value:.4f}"
                    losses.clear()
            print(line, flush=True)
            said, said_step, samples = now, step, 0
        if now - saved > 60:
            checkpoint(elapsed)
            save_weights(out / "weights.pt", average, elapsed)
            saved = now
    elapsed = before + time.monotonic() - start
    took = elapsed - before
    counts = {"x".join(map(str, size)): len(clips.latents) for size, clips in data.items()}
    rates = {"steps_per_s": (step - first_step) / took, "samples_per_s": all_samples / took}
    runs.append({"seconds": took, "clips": counts} | rates)
    checkpoint(elapsed)
    log = {"kind": "transformer", "seconds": elapsed, "steps": step, "runs": runs, "curve": curve}
    log["parameters"] = {
        "transformer": model.count_parameters(transformer),
        "text_encoder": model.count_parameters(text_encoder),
    }
    write_json(out / "log.json", log)
    data.clear()
    export(args, vae, tokenizer, average, device)


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True, help="output folder of train_vae")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and logs")
    parser.add_argument("--seconds", type=float, required=True, help="training time of this run")
    parser.add_argument("--total-seconds", type=float, help="training time of all runs together")
    parser.add_argument("--encode-seconds", type=float, default=120.0, help="data set time")
    parser.add_argument("--max-clips", type=int, default=60_000, help="data set size limit")
    parser.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="continue from OUT/checkpoint.pt")
    parser.add_argument("--init", type=Path, help="start from the weights.pt of another run")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--say-every", type=float, default=10.0, help="seconds between log lines")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
