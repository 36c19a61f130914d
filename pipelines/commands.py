"""The subcommands `generate`, `inspect` and `doctor` of the `ajour` command."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajour.files import finite, write_json
from ajour.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST = 10**6
"""Largest size or number that an option takes."""

DTYPES = ("float32", "bfloat16", "float16")
"""Names of dtypes that a pipeline can be loaded in."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `generate`, `inspect` and `doctor` to the subcommands of a parser.

    Each sets `run`, which takes the parsed arguments and returns None or raises.
    """
    from ajour.backends import BACKENDS
    from ajour.pipelines.bundled import Defaults

    own = Defaults()
    usual = (
        f"{own.frames} frames of {own.height} x {own.width}, {own.steps} steps, guidance "
        f"{own.guidance:g}"
    )
    make = commands.add_parser(
        "generate",
        help="make a video twice, dense and sparse, and compare",
        description="Writes dense.mp4, sparse.mp4, compare.mp4, report.json and plan.json. Size, "
        "steps and guidance are the pipeline's own if left out; the bundled model's are "
        f"{usual}.",
    )
    make.add_argument("--prompt", default=own.prompt, help="default: %(default)s")
    make.add_argument("--seed", type=seed, default=0, help="of the initial noise (default: 0)")
    add_call_arguments(make)
    make.add_argument("--fps", type=positive, default=own.fps, help="default: %(default)s")
    make.add_argument(
        "--model",
        help="folder or Hub id of a pipeline; the bundled model if left out",
    )
    make.add_argument(
        "--plan",
        help="plan file, Hub repository, or auto; if left out, the bundled model's own, or auto",
    )
    make.add_argument("--density", type=number, help="of an automatic plan, in sparse steps")
    make.add_argument("--backend", choices=BACKENDS, help="the fastest that can run if left out")
    add_compile(make)
    add_model_arguments(make)
    make.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for the results (default: out)"
    )
    make.add_argument("--json", action="store_true", help="print the report as JSON")
    make.set_defaults(run=_generate)

    look = commands.add_parser(
        "inspect",
        help="draw a plan and its patterns",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    look.add_argument(
        "plan", nargs="?", help="plan file or Hub repository; the bundled model's if left out"
    )
    look.add_argument("--grid", type=_grid, default="13x16x16", help="frames x height x width")
    look.add_argument("--out", type=Path, default=Path("out/plan.png"), help="PNG file")
    look.set_defaults(run=_inspect)

    check = commands.add_parser("doctor", help="what can run here, and why not")
    check.add_argument("--json", action="store_true", help="print the findings as JSON")
    check.set_defaults(run=_doctor)


def _generate(args: argparse.Namespace) -> None:
    from ajour.pipelines.bundled import bundled_plan, load_pipeline
    from ajour.pipelines.calls import explaining, fit_call
    from ajour.pipelines.enable import resolve_plan
    from ajour.pipelines.generate import compare
    from ajour.pipelines.video import side_by_side, write_mp4

    bundled = args.plan is None and args.model is None and args.density is None
    plan = bundled_plan() if bundled else resolve_plan(args.plan or "auto", args.density)
    args.out.mkdir(parents=True, exist_ok=True)
    given = call_options(args, own=args.model is None)
    pipe = load_pipeline(args.model, args.device, args.dtype, args.lora)
    call = fit_call(pipe, given)
    with explaining(pipe, call):
        result = compare(
            pipe, plan, args.prompt, args.seed, args.backend, compile=args.compile, **call
        )
    report = result.report
    dense, sparse = result.dense.video, result.sparse.video
    labels = [
        f"dense, {report.dense_seconds:.1f} s",
        f"sparse, {report.sparse_seconds:.1f} s, {report.psnr_db:.1f} dB",
    ]
    write_mp4(args.out / "dense.mp4", dense, args.fps)
    write_mp4(args.out / "sparse.mp4", sparse, args.fps)
    write_mp4(args.out / "compare.mp4", side_by_side([dense, sparse], labels), args.fps)
    result.plan.save(args.out / "plan.json")
    write_json(args.out / "report.json", report.to_dict())
    if args.json:
        print(json.dumps(finite(report.to_dict()), indent=1))
    else:
        print_figures(f"videos and report in {args.out}", report.to_dict())


def _inspect(args: argparse.Namespace) -> None:
    from ajour.pipelines.bundled import bundled_plan
    from ajour.pipelines.draw import draw_plan
    from ajour.pipelines.hub import load_plan

    plan = bundled_plan() if args.plan is None else load_plan(args.plan)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw_plan(plan, args.grid, args.out)
    print(args.out)


def _doctor(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from ajour.pipelines.doctor import diagnose

    findings = diagnose()
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
        return
    rows = [(f.subject, "yes" if f.works else "no", f.detail) for f in findings]
    print_table("ajour doctor", ("subject", "works", "detail"), rows)


def add_compile(parser: argparse.ArgumentParser) -> None:
    """Add `--compile`."""
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the transformer's blocks with torch.compile, dense and sparse alike",
    )


def add_call_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `call_options` reads."""
    from ajour.pipelines.bundled import SIZES

    sizes = ", ".join(f"{name} {f} x {h} x {w}" for name, (f, h, w) in SIZES.items())
    parser.add_argument(
        "--size",
        choices=SIZES,
        help=f"frames, height and width together: {sizes}; --frames, --height and --width "
        "override theirs",
    )
    parser.add_argument("--steps", type=positive, help="denoising steps")
    parser.add_argument("--frames", type=positive, help="of a video")
    parser.add_argument("--height", type=positive, help="in pixels")
    parser.add_argument("--width", type=positive, help="in pixels")
    parser.add_argument("--guidance", type=number, help="classifier-free guidance scale")
    parser.add_argument("--text-length", type=positive, help="tokens that prompts are padded to")
    parser.add_argument("--negative-prompt", metavar="TEXT", help="what pictures should not show")
    parser.add_argument(
        "--image", type=Path, metavar="FILE", help="for pipelines that begin with an image"
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how a pipeline is loaded."""
    parser.add_argument(
        "--lora", metavar="PATH_OR_ID", help="folder, file or Hub id of a LoRA to load"
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="of the weights; if left out, bfloat16 on a GPU, but float32 for the bundled model",
    )
    parser.add_argument("--device", help="such as cuda; if left out, a GPU if there is one")


def call_options(args: argparse.Namespace, own: bool = False) -> dict[str, Any]:
    """Arguments of a pipeline's call: those given, over the bundled model's if it is the `own`.

    Raises:
        ValueError: if an image cannot be read.
    """
    from ajour.pipelines.bundled import SIZES, Defaults, call_arguments
    from ajour.pipelines.calls import read_image

    given = {name: value for name, value in vars(args).items() if value is not None}
    if "size" in given:
        sides = zip(("frames", "height", "width"), SIZES[given["size"]], strict=True)
        given = dict(sides) | given
    if "image" in given:
        given["image"] = read_image(given["image"])
    return (Defaults().call() if own else {}) | call_arguments(given)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; without a header if all columns are unnamed."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_figures(title: str, figures: Mapping[str, Any]) -> None:
    """Print a table of figures, and below it what those of quality mean."""
    from ajour.pipelines.measures import MEASURES

    rows: list[tuple[str, str]] = []
    for key, value in figures.items():
        if key == "measures":
            continue
        if key in MEASURES:
            value = MEASURES[key].show(value)
        elif isinstance(value, float):
            value = f"{value:.4g}"
        elif isinstance(value, dict):
            value = ", ".join(f"{name} {number}" for name, number in value.items())
        elif isinstance(value, list):
            value = "; ".join(value) or "none"
        rows.append((key, str(value)))
    print_table(title, ("", ""), rows)
    for key, measure in MEASURES.items():
        if key in figures:
            print(f"{key}: {measure.meaning}")


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


def _grid(text: str) -> Any:
    from ajour.grid import TokenGrid

    try:
        return TokenGrid.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
