"""`ajour bench`: verify a plan again, on other prompts or another machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ajour.pipelines.measures import MEASURES, explain
from ajour.pipelines.printing import rough
from ajour.schedule import DENSE
from ajour.search.provenance import origin
from ajour.search.settings import described, is_described
from ajour.search.shape import run_shape
from ajour.search.timing.passes import time_plan
from ajour.search.verify.runs import Verifier
from ajour.search.work import Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ajour.plan import Plan
    from ajour.search.setup import Setup
    from ajour.search.workers import Workers


def bench(
    setup: Setup, plan: Plan, prompts: Sequence[str], seed: int, workers: Workers
) -> dict[str, Any]:
    """Run a plan on prompts against dense attention; each prompt has the seed after the last one's.

    Returns:
        As JSON: the figures of `Quality` and `PassTimes`; `measures`, the meaning of those of
        quality; `searched`, the predicted and verified
        figures of the plan's search; model, device, versions, call, prompts and seed.
    """
    with TemporaryDirectory(prefix="ajour-bench-") as folder:
        work = Work(Path(folder), {"plan": plan.to_dict()}, rank=workers.rank)
        quality = Verifier(setup, prompts, seed, work, workers).verify(plan)
    shape = run_shape(setup, prompts[0])
    run = shape.noise_levels, prompts[0], shape.passes, shape.cuts
    times = time_plan(setup, plan, *run)
    searched = {name: plan.provenance.get(name) for name in ("predicted", "verified")}
    call = {"call": described(setup.call), "prompts": list(prompts), "seed": seed}
    figures = quality.to_dict() | asdict(times)
    figures |= {"measures": explain(figures), "searched": searched}
    return figures | origin(setup) | call


def bench_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The rows that `ajour bench` prints of a result, each with its unit."""
    runs, each = len(result["prompts"]), result["psnr_db_each"]
    dense = result["pass_seconds"][DENSE]
    rows = [
        (
            "speed-up of whole runs",
            f"{rough(result['run_speedup'])}x: {rough(result['dense_run_seconds'])} s dense, "
            f"{rough(result['run_seconds'])} s with the plan, medians of {count_of(runs)}",
        ),
        (
            "speed-up by passes",
            f"{rough(result['speedup'])}x: single passes timed in turns, which other work on the "
            "machine disturbs less",
        ),
        ("a dense pass", f"{rough(1e3 * dense)} ms"),
    ]
    for name, seconds in result["pass_seconds"].items():
        if name != DENSE:
            rows.append((f"a pass of {name}", f"{rough(1e3 * seconds)} ms"))
    rows += [
        (measure.title, measure.show(result[key]))
        for key, measure in MEASURES.items()
        if key in result
    ]
    if runs > 1:
        rows.append(("PSNR of each prompt", ", ".join(f"{value:.1f} dB" for value in each)))
    return rows


def count_of(runs: int) -> str:
    """For example `1 pair of runs`."""
    return f"{runs} pair{'s' if runs > 1 else ''} of runs"


def searched_call(plan: Plan) -> dict[str, Any]:
    """Arguments of the pipeline's call in the search of a plan, as far as the plan has them."""
    call = plan.provenance.get("call")
    if not isinstance(call, dict):
        return {}
    return {name: value for name, value in call.items() if not is_described(value)}
