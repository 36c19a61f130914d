"""Trains the mini pipeline's video VAE on freshly rendered scenes, within a wall-clock budget."""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tools.mini import model, plots, scenes

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan

CROP = 128
WINDOW = 17
PICTURE_SIZES = ((256, 256), (256, 256), (192, 320), (320, 192))
PICTURE_PART = 0.35
"""Part of the training that sees single frames: colours and shapes are learnt there, cheaply."""

PEAK_LR = 1e-3
KL_WEIGHT = 2e-5
GRADIENT_WEIGHT = 0.5
SQUARE_WEIGHT = 4.0


def learning_rate_factor(progress: float, warmup: float = 0.02) -> float:
    """Linear warm-up, then cosine to zero, over a run's progress in [0, 1]."""
    if progress < warmup:
        return max(progress / warmup, 0.01)
    done = min((progress - warmup) / (1 - warmup), 1.0)
    return 0.5 * (1 + math.cos(math.pi * done))


class Average:
    """Exponential moving average of a module's parameters, ramped up from short memory.

    Args:
        modules: Modules to follow.
        decay: Final decay.
    """

    def __init__(self, modules: list[torch.nn.Module], decay: float) -> None:
        self.live = [p for m in modules for p in m.parameters()]
        self.mean = [p.detach().clone() for p in self.live]
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the parameters after optimizer step `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.live], 1 - decay)

    @torch.no_grad()
    def copy_to(self, modules: list[torch.nn.Module]) -> None:
        """Writes the average into modules of the same structure."""
        for target, mean in zip(
            (p for m in modules for p in m.parameters()), self.mean, strict=True
        ):
            target.copy_(mean)


def render_clips(
    rng: random.Random, count: int, size: tuple[int, int, int], device: torch.device
) -> torch.Tensor:
    """Renders (count,3,F,H,W) clips of fresh training scenes; `size` is (F,H,W)."""
    picked = [scenes.sample_scene(rng) for _ in range(count)]
    return scenes.render(picked, *size, device)


def training_batch(
    rng: random.Random, device: torch.device, pictures: bool, tiny: bool
) -> torch.Tensor:
    """Renders whole scenes and cuts short windows and crops from them, at their true speed.

    Args:
        rng: Source of the scenes and cuts.
        device: Where to render.
        pictures: Single whole frames instead.
        tiny: Smallest sizes, for smoke tests.

    Returns:
        (B,3,F,H,W) in [-1,1].
    """
    if tiny:
        return render_clips(rng, 2, (1 if pictures else 5, 32, 32), device)
    height, width = rng.choice(PICTURE_SIZES)
    if pictures:
        return render_clips(rng, 16, (1, height, width), device)
    if rng.random() < 0.2:  # whole pictures, few frames
        clips = render_clips(rng, 4, (49, 2 * CROP, 2 * CROP), device)
        start = rng.randint(0, 40)
        return clips[:, :, start : start + 9]
    clips = render_clips(rng, 6, (49, height, width), device)
    cuts = []
    for clip in clips:
        for start in (rng.randint(0, 16), rng.randint(17, 32)):
            top, left = rng.randint(0, height - CROP), rng.randint(0, width - CROP)
            cuts.append(clip[:, start : start + WINDOW, top : top + CROP, left : left + CROP])
    return torch.stack(cuts)


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared and Charbonnier distance of the pixels; the latter of their differences too.

    The differences run along time, height and width. Squares find the colours, absolute values the
    edges.
    """
    error = output.float() - target
    loss = (error.square() + 1e-6).sqrt().mean() + SQUARE_WEIGHT * error.square().mean()
    for dim in (2, 3, 4):
        if error.shape[dim] > 1:
            edge = error.diff(dim=dim)
            loss = loss + GRADIENT_WEIGHT * (edge.square() + 1e-6).sqrt().mean()
    return loss


def training_loss(
    vae: AutoencoderKLWan, video: torch.Tensor, kl_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encodes, samples and decodes; returns (total loss, KL per latent element)."""
    with torch.autocast(video.device.type, torch.bfloat16, enabled=video.is_cuda):
        moments = model.encode_moments(vae, video).float()
        mean, log_variance = moments.chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)
        latents = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        output = model.decode_video(vae, latents)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return reconstruction_loss(output, video) + kl_weight * kl.mean(), kl.mean().detach()


@torch.no_grad()
def latent_statistics(
    vae: AutoencoderKLWan, rng: random.Random, clips: int, size: tuple[int, int, int]
) -> tuple[list[float], list[float]]:
    """Measures mean and standard deviation of every latent channel over rendered clips."""
    device = next(vae.parameters()).device
    count, total, squares = 0, torch.zeros(16).double(), torch.zeros(16).double()
    for start in range(0, clips, 4):
        video = render_clips(rng, min(4, clips - start), size, device)
        latents = model.encode_moments(vae, video)[:, :16].double().cpu()
        count += latents.numel() // 16
        total += latents.sum((0, 2, 3, 4))
        squares += latents.square().sum((0, 2, 3, 4))
    mean = total / count
    return mean.tolist(), (squares / count - mean.square()).clamp_min(1e-8).sqrt().tolist()


@torch.no_grad()
def held_out_quality(
    vae: AutoencoderKLWan, seed: int, clips: int, size: tuple[int, int, int], sheet: Path
) -> float:
    """Mean PSNR in dB of held-out clips through the VAE's own encode and decode; draws a sheet."""
    from tools.mini.prompts import held_out_prompts

    device = next(vae.parameters()).device
    scores: list[float] = []
    rows: list[torch.Tensor] = []
    labels: list[str] = []
    for scene in held_out_prompts(clips, seed):
        video = scenes.render([scene], *size, device)
        output = vae.decode(vae.encode(video).latent_dist.mode()).sample
        mse = ((output - video) / 2).square().mean().item()
        scores.append(-10 * math.log10(max(mse, 1e-12)))
        if len(rows) < 12:
            rows += [video[0].cpu(), output[0].cpu()]
            labels += ["original", f"reconstruction, {scores[-1]:.1f} dB"]
    plots.contact_sheet(rows, labels, sheet)
    return sum(scores) / len(scores)


def write_json(path: Path, data: object) -> None:
    """Writes JSON through a temporary file, so that a killed run leaves the old one whole."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data, indent=1) + "\n")
    part.replace(path)


def save_checkpoint(path: Path, state: dict[str, object]) -> None:
    """Writes a checkpoint through a temporary file."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def rng_state(rng: random.Random) -> dict[str, object]:
    """Collects the states of all random generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"python": rng.getstate(), "torch": torch.get_rng_state(), "cuda": cuda}


def restore_rng(rng: random.Random, state: dict[str, object]) -> None:
    """Sets the generators as `rng_state` found them; CUDA only where the GPU count is the same."""
    rng.setstate(state["python"])
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


def train(args: argparse.Namespace) -> None:
    """Runs the training and writes weights, log and pictures to `args.out`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    rng = random.Random(args.seed)
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    layout = torch.channels_last_3d if args.channels_last else torch.contiguous_format
    vae = model.build_vae().to(device).train()
    for parameter in vae.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    average = Average([vae], 0.999)
    optimizer = torch.optim.AdamW(
        vae.parameters(),
        lr=PEAK_LR,
        betas=(0.9, 0.99),
        weight_decay=0.0,
        fused=device.type == "cuda",
    )
    step, before = 0, 0.0
    curve: list[dict[str, float]] = []
    if args.resume:
        state = torch.load(out / "checkpoint.pt", map_location=device, weights_only=False)
        vae.load_state_dict(state["weights"])
        average.mean = state["average"]
        optimizer.load_state_dict(state["optimizer"])
        restore_rng(rng, state["rng"])
        step, before, curve = state["step"], state["elapsed"], state["curve"]
    total = args.total_seconds or before + args.seconds

    def checkpoint(elapsed: float) -> None:
        save_checkpoint(
            out / "checkpoint.pt",
            {
                "weights": vae.state_dict(),
                "average": average.mean,
                "optimizer": optimizer.state_dict(),
                "rng": rng_state(rng),
                "step": step,
                "elapsed": elapsed,
                "curve": curve,
            },
        )

    start = said = saved = time.monotonic()
    said_step, clips = step, 0
    while (now := time.monotonic()) - start < args.seconds:
        elapsed = before + now - start
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LR * learning_rate_factor(elapsed / total)
        video = training_batch(rng, device, elapsed < PICTURE_PART * total, args.tiny)
        video = video.contiguous(memory_format=layout)
        loss, kl = training_loss(vae, video, args.kl_weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        if torch.isfinite(norm):
            optimizer.step()
        step += 1
        clips += len(video)
        average.update(step)
        if now - said > args.say_every:
            rate, speed = (step - said_step) / (now - said), clips / (now - said)
            curve.append({"seconds": elapsed, "step": step, "loss": loss.item(), "kl": kl.item()})
            print(
                f"{elapsed:6.0f}s step {step} loss {loss.item():.4f} kl {kl.item():.2f} "
                f"{rate:.2f} steps/s {speed:.0f} clips/s",
                flush=True,
            )
            said, said_step, clips = now, step, 0
        if now - saved > 60:
            checkpoint(elapsed)
            saved = now
    elapsed = before + time.monotonic() - start
    checkpoint(elapsed)

    average.copy_to([vae])
    vae.eval()
    size = (5, 32, 32) if args.tiny else (49, 256, 256)
    mean, std = latent_statistics(vae, random.Random(args.seed + 1), 4 if args.tiny else 64, size)
    final = model.build_vae(mean, std)
    final.load_state_dict(vae.state_dict())
    final.save_pretrained(out / "vae")
    log = {"kind": "vae", "seconds": elapsed, "steps": step, "curve": curve}
    write_json(out / "log.json", log)
    psnr = held_out_quality(vae, args.seed + 2, 2 if args.tiny else 16, size, out / "sheet.png")
    log |= {"psnr_db": psnr, "latents_mean": mean, "latents_std": std}
    log |= {"parameters": model.count_parameters(vae)}
    write_json(out / "log.json", log)
    print(f"{step} steps, held-out PSNR {psnr:.2f} dB, weights in {out / 'vae'}", flush=True)


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and logs")
    parser.add_argument("--seconds", type=float, required=True, help="training time of this run")
    parser.add_argument("--total-seconds", type=float, help="training time of all runs together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kl-weight", type=float, default=KL_WEIGHT)
    parser.add_argument("--resume", action="store_true", help="continue from OUT/checkpoint.pt")
    parser.add_argument(
        "--channels-last", action="store_true", help="memory layout; which is faster depends"
    )
    parser.add_argument("--say-every", type=float, default=10.0, help="seconds between log lines")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
