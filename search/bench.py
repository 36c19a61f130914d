"""`ajour bench`: verify a plan again, on other prompts or another machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ajour.pipelines.measures import explain
from ajour.search.provenance import origin
from ajour.search.settings import described, is_described
from ajour.search.shape import run_shape
from ajour.search.timing.passes import time_plan
from ajour.search.verify.runs import Verifier
from ajour.search.work import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def searched_call(plan: Plan) -> dict[str, Any]:
    """Arguments of the pipeline's call in the search of a plan, as far as the plan has them."""
    call = plan.provenance.get("call")
    if not isinstance(call, dict):
        return {}
    return {name: value for name, value in call.items() if not is_described(value)}
