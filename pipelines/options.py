"""Options that the subcommands share: numbers with bounds, a pipeline's call, how it is loaded."""

from __future__ import annotations

import argparse
import math
import shlex
from pathlib import Path
from typing import Any

from ajour.names import BACKENDS
from ajour.pipelines.bundled import SIZES, Defaults, call_arguments
from ajour.quoting import quoted

MOST = 10**6
"""Largest size or number that an option takes."""

DTYPES = ("float32", "bfloat16", "float16")
"""Names of dtypes that a pipeline can be loaded in."""

UNREPEATED = ("command", "run", "model", "resume", "dry_run", "json", "force")
"""Parsed arguments that are no options of a command line that repeats a job."""


def add_seed(parser: argparse.ArgumentParser, help: str) -> None:
    """Add `--seed`."""
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help=f"{help} (default: 0)")


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add `--backend`."""
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        help="what computes sparse attention; if left out, the fastest that can run",
    )


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add `--force`."""
    parser.add_argument(
        "--force", action="store_true", help="replace files that would otherwise be kept"
    )


def add_compile(parser: argparse.ArgumentParser) -> None:
    """Add `--compile`."""
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the transformer's blocks with torch.compile, dense and sparse alike",
    )


def add_call_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `call_options` reads."""
    sizes = ", ".join(f"{name} {f} x {h} x {w}" for name, (f, h, w) in SIZES.items())
    parser.add_argument(
        "--size",
        choices=SIZES,
        help=f"frames, height and width together: {sizes}; --frames, --height and --width "
        "override theirs",
    )
    for option, metavar, text in (
        ("--steps", "N", "denoising steps"),
        ("--frames", "N", "frames of the video"),
        ("--height", "PIXELS", "height of the video"),
        ("--width", "PIXELS", "width of the video"),
        ("--text-length", "N", "tokens that prompts are padded to"),
    ):
        parser.add_argument(option, type=positive, metavar=metavar, help=text)
    parser.add_argument(
        "--guidance", type=number, metavar="SCALE", help="classifier-free guidance scale"
    )
    parser.add_argument("--negative-prompt", metavar="TEXT", help="what pictures should not show")
    parser.add_argument(
        "--image", type=Path, metavar="FILE", help="first image, for pipelines that begin with one"
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how a pipeline is loaded."""
    parser.add_argument(
        "--lora", metavar="PATH_OR_ID", help="folder, file or Hub id of a LoRA to load"
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="dtype of the weights; if left out, bfloat16 on a GPU, but float32 for the bundled "
        "model",
    )
    parser.add_argument(
        "--device", help="device to run on, such as cuda or cpu; if left out, a GPU if there is one"
    )


def call_options(args: argparse.Namespace, own: bool = False) -> dict[str, Any]:
    """Arguments of a pipeline's call: those given, over the bundled model's if it is the `own`.

    Raises:
        ValueError: if an image cannot be read.
    """
    given = {name: value for name, value in vars(args).items() if value is not None}
    if "size" in given:
        sides = zip(("frames", "height", "width"), SIZES[given["size"]], strict=True)
        given = dict(sides) | given
    if "image" in given:
        from ajour.pipelines.calls import read_image

        given["image"] = read_image(given["image"])
    return (Defaults().call() if own else {}) | call_arguments(given)


def command_line(args: argparse.Namespace, *arguments: str) -> str:
    """The command line that repeats a job.

    Args:
        args: the parsed arguments.
        arguments: that are no options, such as the model of a search.
    """
    words = ["ajour", args.command, *arguments]
    for name, value in vars(args).items():
        if name in UNREPEATED or value is None or value is False:
            continue
        if name == "reuse":  # the only option that is on if left out
            continue
        words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    if getattr(args, "reuse", True) is False:
        words.append("--no-reuse")
    return shlex.join(words)


def positive(text: str) -> int:
    """An integer from 1 to a million, for argparse."""
    return _between(text, 1, MOST)


def seed(text: str) -> int:
    """A seed of PyTorch's generators, for argparse; a search adds to it for further prompts."""
    return _between(text, 0, 2**62)


def port(text: str) -> int:
    """A port of TCP, for argparse."""
    return _between(text, 1, 2**16 - 1)


def number(text: str) -> float:
    """A finite number, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {quoted(text)}")
    return value


def _between(text: str, least: int, most: int) -> int:
    try:
        value = int(text)
    except ValueError:  # thousands of digits too
        value = least - 1
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(
            f"must be an integer from {least} to {most}, got {quoted(text)}"
        )
    return value
