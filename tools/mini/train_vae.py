"""Trains the mini pipeline's video VAE on freshly rendered scenes, within a wall-clock budget."""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan

from tools.mini import model, plots, scenes


@dataclass(frozen=True)
class Cut:
    """A kind of training batch: a short window of clips, whole or cut into tiles.

    Attributes:
        share: Share of the batches.
        paces: Frame counts of the clips that the window is cut from; few frames mean fast things.
        frames: Frames of the window.
        picture: Height and width that are rendered.
        tiles: Rows and columns that each picture is cut into.
        scenes: Scenes of a batch.
    """

    share: float
    paces: tuple[int, ...]
    frames: int
    picture: tuple[int, int]
    tiles: tuple[int, int]
    scenes: int


CUTS = (
    Cut(0.23, (17,), 17, (128, 128), (1, 1), 18),
    Cut(0.07, (17, 25), 17, (256, 256), (1, 1), 5),
    Cut(0.07, (17, 25), 17, (192, 320), (1, 1), 5),
    Cut(0.08, (17, 25), 17, (320, 192), (1, 1), 5),
    Cut(0.20, (49,), 17, (256, 256), (1, 1), 5),
    Cut(0.12, (33, 49), 17, (192, 320), (1, 1), 5),
    Cut(0.10, (81,), 5, (480, 832), (2, 4), 3),
    Cut(0.08, (97,), 9, (512, 512), (2, 2), 2),
    Cut(0.05, (49,), 1, (512, 512), (2, 2), 20),
)
"""About 5 million pixels each; few shapes, since each costs cuDNN a search. 45 % are fast."""

PICTURES = (
    Cut(0.5, (49,), 1, (256, 256), (1, 1), 16),
    Cut(0.25, (49,), 1, (192, 320), (1, 1), 16),
    Cut(0.25, (49,), 1, (320, 192), (1, 1), 16),
)
TINY_CUTS = (
    Cut(0.5, (5, 9), 5, (32, 32), (1, 1), 2),
    Cut(0.3, (9,), 5, (32, 64), (1, 2), 1),
    Cut(0.2, (9,), 1, (32, 32), (1, 1), 2),
)
TINY_PICTURES = TINY_CUTS[2:]
PICTURE_PART = 0.35
"""Part of the training that sees single frames: colours and shapes are learnt there, cheaply."""

MEASURED = {(17, 128, 128): 12, (49, 256, 256): 12, (33, 192, 320): 12, (81, 480, 832): 3}
"""Clip sizes (frames, height, width) whose quality is measured, and on how many clips."""

STATISTICS = ((17, 128, 128), (49, 256, 256), (33, 192, 320))
"""Clip sizes over which the latents' statistics are taken, all with the same weight."""

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


def training_batch(rng: random.Random, device: torch.device, cuts: tuple[Cut, ...]) -> torch.Tensor:
    """Renders one window of fresh scenes, at the speed of a whole clip, and cuts it into tiles.

    A window that starts inside a clip is taken as a clip of its own: its first frame stands alone.

    Args:
        rng: Source of the scenes and windows.
        device: Where to render.
        cuts: Kinds of batches to draw from, by their shares.

    Returns:
        (B,3,F,H,W) in [-1,1].
    """
    cut = rng.choices(cuts, [c.share for c in cuts])[0]
    last = rng.choice(cut.paces) - 1
    start = rng.randint(0, last + 1 - cut.frames)
    span = (start / last, (start + cut.frames - 1) / last)
    picked = [scenes.sample_scene(rng) for _ in range(cut.scenes)]
    video = scenes.render(picked, cut.frames, *cut.picture, device, span=span)
    (rows, columns), (height, width) = cut.tiles, cut.picture
    shape = (cut.scenes, 3, cut.frames, rows, height // rows, columns, width // columns)
    return video.view(shape).permute(0, 3, 5, 1, 2, 4, 6).flatten(0, 2)


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
    vae: AutoencoderKLWan, rng: random.Random, clips: int, sizes: tuple[tuple[int, int, int], ...]
) -> tuple[list[float], list[float]]:
    """Measures mean and standard deviation of every latent channel over rendered clips.

    Args:
        vae: The VAE.
        rng: Source of the scenes.
        clips: Clips of each size, a multiple of 4.
        sizes: Clip sizes; all weigh the same.

    Returns:
        Means and standard deviations.
    """
    device = next(vae.parameters()).device
    total, squares = torch.zeros(16).double(), torch.zeros(16).double()
    batches = [size for size in sizes for _ in range(clips // 4)]
    for size in batches:
        latents = model.encode_moments(vae, render_clips(rng, 4, size, device))[:, :16]
        latents = latents.double().cpu()
        total += latents.mean((0, 2, 3, 4))
        squares += latents.square().mean((0, 2, 3, 4))
    mean = total / len(batches)
    std = (squares / len(batches) - mean.square()).clamp_min(1e-8).sqrt()
    return mean.tolist(), std.tolist()


@torch.no_grad()
def held_out_quality(
    vaes: dict[str, AutoencoderKLWan],
    rng: random.Random,
    sizes: dict[tuple[int, int, int], int],
    sheet: Path,
) -> dict[str, dict[str, float]]:
    """Mean PSNR of held-out clips through each VAE; draws the first clips of each size.

    Args:
        vaes: VAEs by name.
        rng: Source of the scenes.
        sizes: Number of clips of each size (frames, height, width).
        sheet: PNG to write.

    Returns:
        For each size, as "17x128x128", the mean PSNR in dB by the VAE's name.
    """
    rows: list[torch.Tensor] = []
    labels: list[str] = []
    quality: dict[str, dict[str, float]] = {}
    for size, clips in sizes.items():
        name = "x".join(map(str, size))
        scores: dict[str, list[float]] = {key: [] for key in vaes}
        for index in range(clips):
            drawn = index < 3
            scene = scenes.sample_scene(rng, "held_out")
            video = scenes.render([scene], *size, next(iter(vaes.values())).device)
            if drawn:
                rows.append(video[0].cpu())
                labels.append(f"{name}, original")
            for key, vae in vaes.items():
                latents = model.encode_moments(vae, video)[:, :16]
                output = model.decode_video(vae, latents).clamp(-1, 1)
                mse = ((output - video) / 2).square().mean().item()
                scores[key].append(-10 * math.log10(max(mse, 1e-12)))
                if drawn:
                    rows.append(output[0].cpu())
                    labels.append(f"{name}, {key} VAE, {scores[key][-1]:.1f} dB")
        quality[name] = {key: sum(values) / clips for key, values in scores.items()}
    plots.contact_sheet(rows, labels, sheet)
    return quality


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
    if args.init:
        old = AutoencoderKLWan.from_pretrained(args.init, torch_dtype=torch.float32)
        vae.load_state_dict(old.state_dict())
    picture_part = 0.0 if args.init else PICTURE_PART
    cuts = TINY_CUTS if args.tiny else CUTS
    pictures = TINY_PICTURES if args.tiny else PICTURES
    for parameter in vae.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    average = Average([vae], 0.999)
    optimizer = torch.optim.AdamW(
        vae.parameters(),
        lr=args.peak_lr,
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
        picture_part = state["picture_part"]
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
                "picture_part": picture_part,
            },
        )

    start = said = saved = time.monotonic()
    said_step, clips = step, 0
    while (now := time.monotonic()) - start < args.seconds:
        elapsed = before + now - start
        for group in optimizer.param_groups:
            group["lr"] = args.peak_lr * learning_rate_factor(elapsed / total)
        early = elapsed < picture_part * total
        video = training_batch(rng, device, pictures if early else cuts)
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
    torch.backends.cudnn.benchmark = False  # a search for each new shape would not pay here
    sizes = ((5, 32, 32), (5, 32, 64)) if args.tiny else STATISTICS
    clips = 4 if args.tiny else 32
    mean, std = latent_statistics(vae, random.Random(args.seed + 1), clips, sizes)
    final = model.build_vae(mean, std)
    final.load_state_dict(vae.state_dict())
    final.save_pretrained(out / "vae")
    log = {"kind": "vae", "seconds": elapsed, "steps": step, "curve": curve}
    log |= {"latents_mean": mean, "latents_std": std, "parameters": model.count_parameters(vae)}
    write_json(out / "log.json", log)
    vaes = {"old": old.to(device).eval()} if args.init else {}
    measured = dict.fromkeys(sizes, 2) if args.tiny else MEASURED
    rng = random.Random(args.seed + 2)
    quality = held_out_quality(vaes | {"new": vae}, rng, measured, out / "sheet.png")
    write_json(out / "log.json", log | {"psnr_db": quality})
    print(f"{step} steps, held-out PSNR {quality}, weights in {out / 'vae'}", flush=True)


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and logs")
    parser.add_argument("--seconds", type=float, required=True, help="training time of this run")
    parser.add_argument("--total-seconds", type=float, help="training time of all runs together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kl-weight", type=float, default=KL_WEIGHT)
    parser.add_argument("--peak-lr", type=float, default=PEAK_LR)
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--resume", action="store_true", help="continue from OUT/checkpoint.pt")
    begin.add_argument("--init", type=Path, help="diffusers VAE folder to fine-tune")
    parser.add_argument(
        "--channels-last", action="store_true", help="memory layout; which is faster depends"
    )
    parser.add_argument("--say-every", type=float, default=10.0, help="seconds between log lines")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
