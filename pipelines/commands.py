"""The subcommands `generate`, `inspect` and `doctor` of the `ajour` command."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajour.files import finite, write_json
from ajour.pipelines.bundled import Defaults
from ajour.pipelines.options import (
    add_backend,
    add_call_arguments,
    add_compile,
    add_force,
    add_model_arguments,
    add_seed,
    call_options,
    command_line,
    number,
    positive,
)
from ajour.pipelines.outputs import (
    check_unclaimed,
    check_writable,
    digests,
    is_made_by,
    own_files,
)
from ajour.pipelines.usage import BadUsage
from ajour.pipelines.vocabulary import known_words, unknown_subject

if TYPE_CHECKING:
    from ajour.pipelines.generate import Comparison

VIDEOS = ("dense.mp4", "sparse.mp4", "compare.mp4")
PLAN, REPORT = "plan.json", "report.json"
"""Files that `ajour generate` writes."""

MADE_BY = "ajour generate"
"""Says in a report which command wrote it."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `generate`, `inspect` and `doctor` to the subcommands of a parser.

    Each sets `run`, which takes the parsed arguments and returns None or raises.
    """
    own = Defaults()
    usual = (
        f"{own.frames} frames of {own.height} x {own.width}, {own.steps} steps, guidance "
        f"{own.guidance:g}"
    )
    make = commands.add_parser(
        "generate",
        help="make a video twice, dense and sparse, and compare",
        description=f"Writes {', '.join(VIDEOS)}, {REPORT} and {PLAN}. Size, steps and guidance "
        f"are the pipeline's own if left out; the bundled model's are {usual}. Files that an "
        "earlier generate wrote to the same folder are replaced, any others only with --force.",
    )
    make.add_argument(
        "--prompt",
        default=own.prompt,
        help=f"what to show. The bundled model knows {known_words()} (default: %(default)s)",
    )
    add_seed(make, "seed of the initial noise")
    add_call_arguments(make)
    make.add_argument(
        "--fps",
        type=positive,
        default=own.fps,
        metavar="N",
        help="frames per second of the written videos (default: %(default)s)",
    )
    make.add_argument(
        "--repeats",
        type=positive,
        default=1,
        metavar="N",
        help="pairs of a dense and a sparse run; times are medians (default: 1)",
    )
    make.add_argument(
        "--model",
        metavar="PATH_OR_ID",
        help="folder or Hub id of a pipeline; the bundled model if left out",
    )
    make.add_argument(
        "--plan",
        metavar="PLAN",
        help="plan file, Hub repository, or auto; if left out, the bundled model's own, or auto",
    )
    make.add_argument(
        "--density",
        type=number,
        metavar="D",
        help="density of the sparse steps, for an automatic plan: the share of attention they keep",
    )
    add_backend(make)
    add_compile(make)
    add_model_arguments(make)
    make.add_argument(
        "--out",
        type=Path,
        default=Path("out"),
        metavar="FOLDER",
        help="folder for the results (default: %(default)s)",
    )
    add_force(make)
    make.add_argument("--json", action="store_true", help="print the report as JSON")
    make.set_defaults(run=_generate)

    look = commands.add_parser(
        "inspect",
        help="draw a plan and its patterns",
        description="Prints a plan in short, and draws it as a picture that fits a screen. A "
        "picture of an earlier inspect is replaced, any other file only with --force.",
    )
    look.add_argument(
        "plan", nargs="?", help="plan file or Hub repository; the bundled model's if left out"
    )
    look.add_argument(
        "--grid",
        type=_grid,
        default="13x16x16",
        metavar="FxHxW",
        help="token grid to draw on: frames x height x width (default: %(default)s)",
    )
    look.add_argument(
        "--pattern", metavar="NAME", help="draw this pattern of the plan alone, and larger"
    )
    look.add_argument(
        "--out",
        type=Path,
        default=Path("out/plan.png"),
        metavar="FILE",
        help="PNG file (default: %(default)s)",
    )
    add_force(look)
    look.set_defaults(run=_inspect)

    check = commands.add_parser("doctor", help="what can run here, and why not")
    check.add_argument("--json", action="store_true", help="print the findings as JSON")
    check.set_defaults(run=_doctor)


def _generate(args: argparse.Namespace) -> None:
    from ajour.pipelines.bundled import bundled_plan, load_pipeline
    from ajour.pipelines.calls import explaining, fit_call, resized
    from ajour.pipelines.devices import check_device
    from ajour.pipelines.enable import resolve_plan
    from ajour.pipelines.generate import compare
    from ajour.pipelines.memory import warn_of_memory
    from ajour.pipelines.progress import Progress, plain_loading

    bundled = args.plan is None and args.model is None and args.density is None
    check_device(args.device)
    files = _outputs(args)
    plan = bundled_plan() if bundled else resolve_plan(args.plan or "auto", args.density)
    given = call_options(args, own=args.model is None)
    progress = Progress(given.get("num_inference_steps", 0))
    if args.model is None and (text := unknown_subject(args.prompt)):
        progress.stage(text)
    progress.stage("loading the model")
    plain_loading()
    pipe = load_pipeline(args.model, args.device, args.dtype, args.lora)
    call = fit_call(pipe, given)
    warn_of_memory(call)
    with explaining(pipe, call):
        result = compare(
            pipe, plan, args.prompt, args.seed, args.backend, progress.step, args.compile,
            args.repeats, progress.stage, **call,
        )  # fmt: skip
    if text := resized(call, result.dense.video.shape):
        progress.stage(text)
    progress.stage(f"writing to {args.out}")
    _write(args, pipe, call, result, files)


def _outputs(args: argparse.Namespace) -> list[Path]:
    """The files that `generate` will write, checked; the plan's file is not replaced by itself."""
    source = None if args.plan is None else Path(args.plan).absolute()
    names = [args.out / name for name in (*VIDEOS, PLAN)]
    files = [file for file in names if file.absolute() != source]
    for file in (*files, args.out / REPORT):
        check_writable(file)
    report = args.out / REPORT
    own = own_files(report, files) | ({report} if is_made_by(report, MADE_BY) else set())
    check_unclaimed(
        [file for file in (*files, report) if file not in own], args.force,
        "generate replaces only files that an earlier generate wrote and nobody changed since. "
        "Give another --out, or --force to replace them",
    )  # fmt: skip
    return files


def _write(
    args: argparse.Namespace, pipe: Any, call: dict[str, Any], result: Comparison, files: list[Path]
) -> None:
    """Write the files of `generate`, and print its report."""
    from ajour.pipelines.calls import whole_call
    from ajour.pipelines.measures import MEASURES
    from ajour.pipelines.printing import advice, print_meanings, print_table, report_rows, rough
    from ajour.pipelines.video import side_by_side, write_mp4

    report = result.report
    dense, sparse = result.dense.video, result.sparse.video
    labels = [
        f"dense, {rough(report.dense_seconds)} s",
        f"sparse, {rough(report.sparse_seconds)} s, {MEASURES['psnr_db'].show(report.psnr_db)}",
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    pair = side_by_side([dense, sparse], labels)
    for name, video in zip(VIDEOS, (dense, sparse, pair), strict=True):
        write_mp4(args.out / name, video, args.fps)
    if args.out / PLAN in files:
        result.plan.save(args.out / PLAN)
    automatic = result.plan.provenance.get("made_by") == "auto" and args.plan in (None, "auto")
    figures = report.to_dict() | {
        "made_by": MADE_BY,
        "command": command_line(args, *([] if args.model is None else ["--model", args.model])),
        "model": args.model or "mini",
        "plan": args.plan or ("auto" if automatic else "bundled"),
        "call": whole_call(pipe, call) | ({} if args.image is None else {"image": str(args.image)}),
        "lora": args.lora,
        "dtype": str(pipe.transformer.dtype).removeprefix("torch."),
        "fps": args.fps,
        "frames": len(dense),
        "height": dense.shape[1],
        "width": dense.shape[2],
        "files": digests(files),
    }
    write_json(args.out / REPORT, figures)
    if args.json:
        print(json.dumps(finite(figures), indent=1))
        return
    print_table("ajour generate", ("", ""), [("results", str(args.out)), *report_rows(report)])
    print_meanings(figures)
    if text := advice(report, automatic):
        print(f"\n{text}")


def _inspect(args: argparse.Namespace) -> None:
    from ajour.pipelines.bundled import bundled_plan
    from ajour.pipelines.draw import draw_pattern, draw_plan, is_drawn
    from ajour.pipelines.hub import load_plan

    plan = bundled_plan() if args.plan is None else load_plan(args.plan)
    if args.out.suffix.lower() != ".png":
        raise BadUsage(f"--out {args.out} names a picture; give {args.out.with_suffix('.png')}")
    check_writable(args.out)
    drawn = args.out.exists() and is_drawn(args.out)
    check_unclaimed(
        [] if drawn else [args.out], args.force,
        "it is no picture of an earlier inspect. Give another --out, or --force to replace it",
    )  # fmt: skip
    if args.pattern is not None and args.pattern not in plan.patterns:
        raise BadUsage(f"--pattern is one of {', '.join(plan.patterns)}, got {args.pattern}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.pattern is None:
        draw_plan(plan, args.grid, args.out)
        print(plan)
    else:
        draw_pattern(args.pattern, plan.patterns[args.pattern], args.grid, args.out)
        print(f"{args.pattern}: {plan.patterns[args.pattern]}")
    print(f"drawn on grid {args.grid}: {args.out}")


def _doctor(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from ajour.pipelines.doctor import diagnose
    from ajour.pipelines.printing import print_table

    findings = diagnose()
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
        return
    rows = [(f.subject, "yes" if f.works else "no", f.detail) for f in findings]
    print_table("ajour doctor", ("subject", "works", "detail"), rows)


def _grid(text: str) -> Any:
    from ajour.grid import TokenGrid

    try:
        return TokenGrid.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
