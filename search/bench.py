"""`ajour bench`: verify a plan again, on other prompts or another machine."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajour.pipelines.enable import session_of, sparse
from ajour.search.passes import first_call, time_passes
from ajour.search.probe import look, searched
from ajour.search.provenance import origin
from ajour.search.settings import GENERAL_PROMPTS, MINI_PROMPTS, read_prompts
from ajour.search.verify import Verifier
from ajour.search.work import Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ajour.plan import Plan
    from ajour.search.workers import Workers


def bench(
    pipe: Any,
    plan: Plan,
    prompts: Sequence[str],
    seed: int,
    workers: Workers,
    backend: str | None,
    call: Mapping[str, Any],
) -> dict[str, Any]:
    """Run a plan on prompts against dense attention.

    Args:
        pipe: a supported pipeline with one transformer, not enabled.
        plan: the plan.
        prompts: to run.
        seed: of the first prompt; the others follow.
        workers: processes that share the prompts.
        backend: the operator's backend; None chooses.
        call: further arguments of the pipeline's call.

    Returns:
        What `Verifier.check` and `time_passes` measure; `searched`, what the plan's search
        predicted and verified, as its provenance has it; and the origin of the figures.

    Raises:
        TypeError: if the pipeline has no supported transformer, or more than one.
    """
    searched(pipe)
    folder = Path(tempfile.mkdtemp(prefix="ajour-bench-"))
    try:
        work = Work(folder, {"plan": plan.to_dict()}, rank=workers.rank)
        verifier = Verifier(pipe, prompts, seed, work, workers, backend, call)
        found = verifier.check(plan)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    with sparse(pipe, plan, backend=backend):
        first_call(pipe, prompts[0], **call)
        levels = list(session_of(pipe).tracker.levels)
    passes = look(pipe, prompts[0], backend, **call).passes
    found |= time_passes(pipe, plan, levels, prompts[0], backend, passes=passes, **call)
    known = {name: plan.provenance.get(name) for name in ("predicted", "verified")}
    where = origin(pipe) | {"call": dict(call), "prompts": list(prompts), "seed": seed}
    return found | {"searched": known} | where


def prompts_for(plan: Plan, path: Path | None, limit: int | None) -> tuple[str, ...]:
    """The prompts of a file, or those that a search of the plan's model would use."""
    if path is not None:
        prompts = read_prompts(path)
    else:
        prompts = MINI_PROMPTS if plan.provenance.get("model") == "mini" else GENERAL_PROMPTS
    return prompts[:limit]
