"""The subcommands `search` and `bench` of the `ajour` command."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajour.files import finite, write_json
from ajour.pipelines.options import (
    DTYPES,
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
from ajour.pipelines.outputs import check_unclaimed, is_made_by
from ajour.pipelines.usage import BadUsage, as_usage
from ajour.quoting import quoted
from ajour.search.files import beside, check_out, results, write_results

if TYPE_CHECKING:
    import argparse

    from ajour.plan import Plan
    from ajour.search.results import Outcome
    from ajour.search.settings import Settings


MADE_BY = "ajour bench"
"""Says in a result which command wrote it."""


class TargetMissed(RuntimeError):
    """No plan reaches the target; the best plan was written."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `search` and `bench` to the subcommands of a parser."""
    search = commands.add_parser(
        "search",
        help="find a plan for a model, measured on this device",
        description="Writes a plan, and beside it a report (.html), its figures (.json) and the "
        "measured costs. Size, steps and guidance are the model's own if left out. Files that "
        "exist are replaced only with --force, or by the search that --resume continues. "
        "Start it under `accelerate launch` to share the prompts between processes.",
    )
    search.add_argument("model", help="pipeline folder or Hub id, or 'mini' for the bundled model")
    target = search.add_mutually_exclusive_group(required=True)
    for option, metavar, text in (
        ("--target-psnr", "DB", "the fastest plan of this PSNR against dense attention, in dB"),
        ("--target-speedup", "X", "the best plan that makes denoising X times as fast"),
        (
            "--target-mean-density",
            "D",
            "the best plan that keeps this share of the attention, as a mean over all steps",
        ),
    ):
        target.add_argument(option, type=number, metavar=metavar, help=text)
    for option, metavar, text in (
        ("--max-perceptual", "D", "perceptual distance from dense attention, 0 to 1"),
        ("--max-banding", "LEVELS", "bands in flat regions, in levels of 255"),
        ("--max-flicker", "X", "flicker relative to dense attention, over 1"),
    ):
        text = f"the plan must also have at most this: {text}"
        search.add_argument(option, type=number, metavar=metavar, help=text)
    _add_run_options(search)
    for option, text in (
        ("--calibration-prompts", "measure errors on the first N prompts (default: 2)"),
        ("--verification-prompts", "verify plans on the next N prompts (default: 3)"),
        (
            "--bands",
            "divide the steps into N bands that may get different assignments (default: 5, or the "
            "number of steps if it is less)",
        ),
    ):
        search.add_argument(option, type=positive, metavar="N", help=text)
    search.add_argument(
        "--costs",
        type=Path,
        metavar="FILE",
        help="costs of an earlier search on this device, used instead of measuring them again; a "
        "target speed-up is then met by prediction",
    )
    search.add_argument(
        "--no-reuse", dest="reuse", action="store_false", help="compute every step of a run"
    )
    _add_out(search, "out/search/plan.json")
    search.add_argument(
        "--resume", action="store_true", help="continue an earlier search; the target may differ"
    )
    search.add_argument(
        "--dry-run",
        action="store_true",
        help="load the model, time a few passes, and print the stages with their expected times",
    )
    search.set_defaults(run=_search)

    bench = commands.add_parser(
        "bench",
        help="verify a plan again: time and quality",
        description="Size, steps and guidance are those of the plan's search if left out. A "
        "result of an earlier bench is replaced, any other file only with --force.",
    )
    bench.add_argument("plan", type=Path, help="plan file")
    bench.add_argument(
        "--model",
        help="pipeline folder or Hub id, or 'mini'; not needed for the bundled model's plans",
    )
    _add_run_options(bench)
    add_compile(bench)
    bench.add_argument(
        "--verification-prompts",
        type=positive,
        metavar="N",
        help="verify on the first N prompts; all if left out",
    )
    _add_out(bench, "out/bench.json")
    bench.set_defaults(run=_bench)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="text file with one prompt per line; built-in prompts if left out",
    )
    add_seed(parser, "seed of the first prompt's noise; each further prompt has the next seed")
    add_call_arguments(parser)
    add_model_arguments(parser)
    add_backend(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_out(parser: argparse.ArgumentParser, name: str) -> None:
    text = f"file to write (default: {name})"
    parser.add_argument("--out", type=Path, default=Path(name), metavar="FILE", help=text)
    add_force(parser)


def _settings(args: argparse.Namespace) -> Settings:
    from ajour.search.bounds import Bounds
    from ajour.search.settings import Settings, Target, prompts_of, split
    from ajour.search.timing.costs import Costs

    targets = {
        "psnr": args.target_psnr,
        "speedup": args.target_speedup,
        "density": args.target_mean_density,
    }
    with as_usage():
        bounds = Bounds(args.max_perceptual, args.max_banding, args.max_flicker)
        target = next(
            Target(kind, value, bounds) for kind, value in targets.items() if value is not None
        )
    prompts = prompts_of(args.prompts, args.model, 2)
    with as_usage():
        calibration, verification = split(
            prompts, args.calibration_prompts, args.verification_prompts
        )
    return Settings(
        model=args.model,
        target=target,
        calibration=calibration,
        verification=verification,
        call=call_options(args, own=args.model == "mini"),
        lora=args.lora,
        dtype=args.dtype,
        seed=args.seed,
        bands=args.bands,
        reuse=args.reuse,
        backend=args.backend,
        costs=None if args.costs is None else Costs.load(args.costs),
    )


def _fitted(settings: Settings, pipe: Any) -> Settings:
    """Settings whose call is checked against a pipeline, and against the machine's memory."""
    from ajour.pipelines.calls import fit_call
    from ajour.pipelines.memory import warn_of_memory

    assert not callable(settings.call)
    warn_of_memory(settings.call)
    return replace(settings, call=fit_call(pipe, settings.call))


def load(args: argparse.Namespace, device: str | None) -> Any:
    """Load the pipeline of a command, without progress bars."""
    from ajour.pipelines.bundled import load_pipeline
    from ajour.pipelines.progress import plain_loading

    plain_loading()
    path = None if args.model == "mini" else args.model
    pipe = load_pipeline(path, device, args.dtype, args.lora)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _search(args: argparse.Namespace) -> None:
    from ajour.pipelines.devices import check_device
    from ajour.pipelines.progress import Progress
    from ajour.search.engine import Search
    from ajour.search.results import missed
    from ajour.search.workers import Workers

    check_device(args.device)
    settings = _settings(args)
    folder = beside(args.out, ".search")
    if args.dry_run:
        _dry_run(args, settings)
        return
    check_out(args.out)
    resumes = args.resume and folder.is_dir()
    check_unclaimed(
        results(args.out), args.force or resumes,
        f"give another --out, --force to replace files, or --resume to go on with the search whose "
        f"work is in {folder}",
    )  # fmt: skip
    progress = Progress()
    with Workers.connected(progress.stage) as workers:
        progress.stage("loading the model")
        pipe = load(args, workers.place(args.device))
        settings = _fitted(settings, pipe)
        with closing(workers.open(folder, settings.identity(), args.resume)) as work:
            try:
                search = Search(pipe, settings, work, workers)
                outcome = search.run()
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"interrupted; finished work is kept in {folder}: repeat the command with "
                    "--resume"
                ) from None
            if not workers.first:
                return
            report = write_results(
                outcome, search.verifier.video, args.out, command_line(args, args.model)
            )
    _print_outcome(outcome, args, report)
    if not outcome.met and not outcome.dense_is_best:
        raise TargetMissed(f"{missed(outcome)}; it was written to {args.out}")


def _dry_run(args: argparse.Namespace, settings: Settings) -> None:
    from ajour.search.estimate import estimate
    from ajour.search.workers import Workers

    with Workers.connected() as workers:
        if not workers.first:
            return
        pipe = load(args, workers.place(args.device))
        settings = _fitted(settings, pipe)
        stages = estimate(pipe, settings, workers.count)
    total = sum(stage.seconds for stage in stages)
    if args.json:
        result = {"stages": [stage._asdict() for stage in stages], "seconds": round(total, 1)}
        print(json.dumps(result, indent=1))
        return
    rows = [(stage.stage, stage.work, duration(stage.seconds)) for stage in stages]
    rows.append(("in all", f"to reach {settings.target}", duration(total)))
    from ajour.pipelines.printing import print_table

    print_table("plan of work", ("stage", "work", "about"), rows)


def _print_outcome(outcome: Outcome, args: argparse.Namespace, report: Path) -> None:
    from ajour.pipelines.measures import MEASURES
    from ajour.pipelines.printing import print_table

    chosen, target = outcome.chosen, outcome.settings.target
    dense = outcome.dense_is_best
    if args.json:
        print(json.dumps(finite(outcome.plan.provenance | {"dense_is_best": dense}), indent=1))
        return
    figures = [
        f"{measure.title} {measure.show(getattr(chosen.quality, name))}"
        for name, measure in MEASURES.items()
    ]
    rows = [
        ("plan", "none" if dense else str(args.out)),
        ("report", str(report)),
        ("target", f"{target.figure}, {outcome.conclusion}"),
        ("verified", ", ".join(figures)),
        ("between prompts", f"PSNR differs by {chosen.quality.psnr_db_spread:.1f} dB (deviation)"),
        ("speed-up", f"{chosen.speedup:.2f}x measured, mean density {outcome.density:.3f}"),
    ]
    for name, bound in outcome.bounds.items():
        word = "met" if bound["met"] else "missed"
        value = MEASURES[name].show(bound["value"])
        rows.append((name, f"{value}, at most {bound['at_most']:g}: {word}"))
    for plan in outcome.baselines:
        rows.append(("one pattern", f"{plan.name}: {plan.psnr_db:.2f} dB, {plan.speedup:.2f}x"))
    print_table("ajour search", ("", ""), rows)
    if dense:
        print(f"{outcome.conclusion}; no plan was written. A lower target may be worth a search.")
        return
    print(f"import ajour\n\najour.enable(pipe, {str(args.out)!r})")


def _bundled(plan: Plan, path: Path) -> str:
    """The name of the bundled model, if a plan was searched on it.

    A plan file may come from anybody, so no other model is loaded because a plan names it.
    """
    model = plan.provenance.get("model")
    if model == "mini":
        return model
    if not isinstance(model, str):
        raise ValueError(
            f"plan {quoted(str(path))} does not say which model it was searched on; give --model"
        )
    raise ValueError(
        f"plan {quoted(str(path))} was searched on the model {quoted(model)}; "
        f"give --model {quoted(model)} if you trust it, or another model of the same shape"
    )


def _bench(args: argparse.Namespace) -> None:
    from ajour.pipelines.calls import fit_call
    from ajour.pipelines.compiling import compiled
    from ajour.pipelines.devices import check_device
    from ajour.pipelines.printing import print_meanings, print_table
    from ajour.pipelines.progress import Progress
    from ajour.plan import Plan
    from ajour.search.bench import bench, bench_rows, searched_call
    from ajour.search.settings import prompts_of
    from ajour.search.setup import Setup
    from ajour.search.workers import Workers

    check_device(args.device)
    plan = Plan.load(args.plan)
    searched = plan.provenance
    if args.model is None:
        args.model = _bundled(plan, args.plan)
    if args.lora is None and isinstance(lora := searched.get("lora"), str):
        raise ValueError(
            f"plan {quoted(str(args.plan))} was searched with the LoRA {quoted(lora)}; give "
            f"--lora {quoted(lora)} if you trust it"
        )
    if args.dtype is None and searched.get("dtype") in DTYPES:
        args.dtype = searched["dtype"]
    call = searched_call(plan) | call_options(args)
    prompts = prompts_of(args.prompts, searched.get("model"))
    if (args.verification_prompts or 0) > len(prompts):
        raise BadUsage(
            f"--verification-prompts is at most {len(prompts)}, the number of prompts, got "
            f"{args.verification_prompts}; give a file with more prompts to --prompts"
        )
    prompts = prompts[: args.verification_prompts]
    check_out(args.out)
    check_unclaimed(
        [] if is_made_by(args.out, MADE_BY) else [args.out], args.force,
        "it is no result of an earlier bench. Give another --out, or --force to replace it",
    )  # fmt: skip
    progress = Progress()
    with Workers.connected(progress.stage) as workers:
        progress.stage("loading the model")
        pipe = load(args, workers.place(args.device))
        setup = Setup(pipe, fit_call(pipe, call), args.backend)
        with compiled(setup.pipe, args.compile):
            result = bench(setup, plan, prompts, args.seed, workers)
        result |= {"compiled": args.compile, "made_by": MADE_BY}
    if not workers.first:
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, result)
    if args.json:
        print(json.dumps(finite(result), indent=1))
        return
    print_table("ajour bench", ("", ""), [("result", str(args.out)), *bench_rows(result)])
    print_meanings(result)


def duration(seconds: float) -> str:
    """For people: `95 s` or `12 min`."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
