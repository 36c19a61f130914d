"""The subcommands `search` and `bench` of the `ajour` command."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajour.pipelines.commands import add_call_arguments, call_options, positive, print_table

if TYPE_CHECKING:
    from ajour.search.engine import Outcome
    from ajour.search.report import Video
    from ajour.search.settings import Settings


class TargetMissed(RuntimeError):
    """No plan reaches the target; the best one was written."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `search` and `bench` to the subcommands of a parser."""
    look = commands.add_parser(
        "search",
        help="find a plan for a model, measured on this device",
        description="Writes a plan, and beside it a report (.html), its figures (.json) and the "
        "measured costs. Size, steps and guidance are the model's own if left out. Start it under "
        "`accelerate launch` to share the prompts over processes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    look.add_argument("model", help="pipeline folder or Hub id, or 'mini' for the bundled model")
    goal = look.add_mutually_exclusive_group(required=True)
    goal.add_argument("--target-psnr", type=float, metavar="DB", help="against dense attention")
    goal.add_argument("--target-speedup", type=float, metavar="X", help="of denoising")
    goal.add_argument("--density", type=float, metavar="D", help="kept share of the attention")
    _add_run_options(look)
    look.add_argument("--calibrate", type=positive, default=2, help="prompts to measure on")
    look.add_argument("--verify", type=positive, default=3, help="other prompts to verify on")
    look.add_argument("--bands", type=positive, default=5, help="bands of steps")
    look.add_argument(
        "--costs",
        type=Path,
        help="costs of an earlier search on this device, not measured again: a target of speed is "
        "then met by prediction",
    )
    look.add_argument("--out", type=Path, default=Path("plan.json"), help="plan file")
    look.add_argument(
        "--resume", action="store_true", help="go on with earlier work; the target may differ"
    )
    look.add_argument(
        "--dry-run",
        action="store_true",
        help="load the model, time a few passes, and say what would be done and for how long",
    )
    look.set_defaults(run=_search)

    test = commands.add_parser(
        "bench",
        help="verify a plan again: time, PSNR, SSIM, flicker",
        description="Size, steps and guidance are those of the plan's search if left out.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    test.add_argument("plan", type=Path, help="plan file")
    test.add_argument("--model", help="pipeline folder or Hub id, or 'mini'; the plan's if absent")
    _add_run_options(test)
    test.add_argument("--verify", type=positive, help="use no more than this many prompts")
    test.add_argument("--out", type=Path, default=Path("bench.json"), help="JSON file")
    test.set_defaults(run=_bench)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    from ajour.backends import BACKENDS

    parser.add_argument("--prompts", type=Path, help="text file, one prompt per line")
    parser.add_argument("--seed", type=int, default=0, help="of the first prompt's noise")
    add_call_arguments(parser)
    parser.add_argument("--backend", choices=BACKENDS, help="the fastest that can run if absent")
    parser.add_argument("--device", help="for example cuda; a GPU where there is one if absent")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _settings(args: argparse.Namespace) -> Settings:
    from ajour.search.settings import (
        GENERAL_PROMPTS,
        MINI_PROMPTS,
        Settings,
        Target,
        read_costs,
        read_prompts,
        split,
    )

    targets = {"psnr": args.target_psnr, "speedup": args.target_speedup, "density": args.density}
    target = next(Target(kind, value) for kind, value in targets.items() if value is not None)
    if args.prompts is not None:
        prompts = read_prompts(args.prompts)
    else:
        prompts = MINI_PROMPTS if args.model == "mini" else GENERAL_PROMPTS
    calibration, verification = split(prompts, args.calibrate)
    return Settings(
        model=args.model,
        target=target,
        calibration=calibration,
        verification=verification[: args.verify],
        call=call_options(args, own=args.model == "mini"),
        seed=args.seed,
        bands=args.bands,
        backend=args.backend,
        costs=None if args.costs is None else read_costs(args.costs),
    )


def load(model: str, device: str | None) -> Any:
    """A model's pipeline, without its own progress bars."""
    from ajour.pipelines.bundled import load_pipeline

    pipe = load_pipeline(None if model == "mini" else model, device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _search(args: argparse.Namespace) -> None:
    from ajour.search.engine import Search
    from ajour.search.workers import Workers

    settings = _settings(args)
    check_out(args.out)
    if args.dry_run:
        _dry_run(args, settings)
        return
    workers = Workers.join()
    folder = beside(args.out, ".search")
    work = workers.open(folder, settings.identity(), args.resume)
    pipe = load(args.model, workers.place(args.device))
    try:
        search = Search(pipe, settings, work, workers)
        outcome = search.run()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; what is finished is kept in {folder}: give the same command --resume"
        ) from None
    finally:
        workers.leave()
    if workers.first:
        _write(args, outcome, search.verifier.video)
        if not outcome.met:
            raise TargetMissed(_what_can(outcome, args.out))


def _dry_run(args: argparse.Namespace, settings: Settings) -> None:
    from ajour.search.estimate import estimate
    from ajour.search.workers import Workers

    workers = Workers.join()
    try:
        if not workers.first:
            return
        stages = estimate(load(args.model, workers.place(args.device)), settings, workers.count)
    finally:
        workers.leave()
    total = sum(stage["seconds"] for stage in stages)
    if args.json:
        print(json.dumps({"stages": stages, "seconds": round(total, 1)}, indent=1))
        return
    rows = [(s["stage"], s["work"], duration(s["seconds"])) for s in stages]
    rows.append(("in all", f"to reach {settings.target}", duration(total)))
    print_table("plan of work", ("stage", "work", "about"), rows)


def _write(args: argparse.Namespace, outcome: Outcome, video: Video) -> None:
    """Plan, figures, costs and report, then a summary on stdout."""
    from ajour.search.report import verdict, write_report

    args.out.parent.mkdir(parents=True, exist_ok=True)
    outcome.plan.save(args.out)
    beside(args.out, ".costs.json").write_text(json.dumps(outcome.costs.to_dict()) + "\n")
    figures = beside(args.out, ".figures.json")
    figures.write_text(json.dumps(outcome.facts, indent=1) + "\n")
    report = beside(args.out, ".html")
    write_report(outcome, video, report, _command(args))
    chosen, target = outcome.facts["chosen"], outcome.facts["target"]
    if args.json:
        print(json.dumps(outcome.plan.provenance, indent=1))
        return
    rows = [
        ("plan", str(args.out)),
        ("report", str(report)),
        ("target", f"{target['kind']} {target['value']:g}, {verdict(outcome.facts)}"),
        ("verified", f"{chosen['psnr_db']:.2f} dB, SSIM {chosen['ssim']:.4f}"),
        ("speed-up", f"{chosen['speedup']:.2f}x measured, density {outcome.facts['density']:.3f}"),
    ]
    rows += [
        ("one pattern", f"{one['name']}: {one['psnr_db']:.2f} dB, {one['speedup']:.2f}x")
        for one in outcome.facts["baselines"]
    ]
    print_table("ajour search", ("", ""), rows)
    print(f"import ajour\n\najour.enable(pipe, {str(args.out)!r})")


def _what_can(outcome: Outcome, out: Path) -> str:
    chosen, target = outcome.facts["chosen"], outcome.facts["target"]
    goal = {"psnr": "PSNR of {:g} dB", "speedup": "speed-up of {:g}x", "density": "density {:g}"}
    by = "" if outcome.facts["met_by"] == "measurement" else " by prediction from the given costs"
    return (
        f"no plan reaches the {goal[target['kind']].format(target['value'])}{by}: the best found "
        f"has {chosen['psnr_db']:.2f} dB at {chosen['speedup']:.2f}x, measured; it was written to "
        f"{out}"
    )


def _command(args: argparse.Namespace) -> str:
    """The command line to repeat a search."""
    words = ["ajour", "search", str(args.model)]
    for name, value in vars(args).items():
        if name in ("command", "run", "model", "resume", "dry_run", "json") or value is None:
            continue
        words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _bench(args: argparse.Namespace) -> None:
    from ajour.plan import Plan
    from ajour.search.bench import bench, prompts_for
    from ajour.search.workers import Workers

    plan = Plan.load(args.plan)
    model = args.model or plan.provenance.get("model")
    if not isinstance(model, str):
        raise ValueError(f"{args.plan} does not say what model it is for; give --model")
    known = plan.provenance.get("call")
    call = (known if isinstance(known, dict) else {}) | call_options(args)
    prompts = prompts_for(plan, args.prompts, args.verify)
    check_out(args.out)
    workers = Workers.join()
    pipe = load(model, workers.place(args.device))
    try:
        found = bench(pipe, plan, prompts, args.seed, workers, args.backend, call)
    finally:
        workers.leave()
    if not workers.first:
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    if args.json:
        print(json.dumps(found, indent=1))
        return
    rows = [(key, f"{value:.4g}") for key, value in found.items() if isinstance(value, float)]
    print_table(f"ajour bench, written to {args.out}", ("", ""), rows)


def beside(out: Path, suffix: str) -> Path:
    """A file beside a plan file: `.json` gives way to the suffix, other names keep their dots."""
    return out.with_name(out.name.removesuffix(".json") + suffix)


def check_out(out: Path) -> None:
    """Raise ValueError if JSON cannot be written to a file, before anything else is done."""
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; name a file, such as {out / 'plan.json'}")
    if out.suffix == ".html":
        raise ValueError(f"--out {out} names a JSON file; give {out.with_suffix('.json')}")
    if not out.parent.is_dir() and out.parent.exists():
        raise ValueError(f"--out {out} cannot be written: {out.parent} is no folder")


def duration(seconds: float) -> str:
    """For people: `95 s` or `12 min`."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
