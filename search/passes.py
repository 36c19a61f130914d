"""How long a plan's passes really take, in turns with dense ones, so that load hits them alike."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ajour.pipelines.enable import session_of, sparse
from ajour.schedule import DENSE, Phase, Schedule
from ajour.search.timing import ROUNDS, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ajour.plan import Plan


class _Enough(Exception):
    """Stops a pipeline once its transformer was called."""


def first_call(pipe: Any, prompt: str, **call: Any) -> tuple[Any, Any]:
    """Arguments and named arguments of a pipeline's first call of its transformer."""
    kept: list[tuple[Any, Any]] = []

    def keep(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        kept.append((args, kwargs))
        raise _Enough

    hook = pipe.transformer.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with suppress(_Enough):
            pipe(prompt, output_type="latent", **call)
    finally:
        hook.remove()
    return kept[0]


def time_passes(
    pipe: Any,
    plan: Plan,
    levels: Sequence[float],
    prompt: str,
    backend: str | None = None,
    rounds: int = ROUNDS,
    **call: Any,
) -> dict[str, Any]:
    """Time a pass under each assignment of a plan and a dense one, in turns.

    Args:
        pipe: a supported pipeline with one transformer, not enabled.
        plan: the plan.
        levels: noise levels of the steps of a run.
        prompt: any prompt.
        backend: the operator's backend; None chooses.
        rounds: timings of each; their lower quartiles are taken.
        call: further arguments of the pipeline's call.

    Returns:
        `pass_seconds` by assignment, `dense` included, and `speedup` of a run of these steps.
    """
    names = [DENSE, *plan.assignments]
    phases = [Phase(1 - index / len(names), name) for index, name in enumerate(names)]
    every = replace(plan, schedule=Schedule(tuple(phases)))
    transformer = pipe.transformer
    spent: dict[str, list[float]] = {name: [] for name in names}
    with sparse(pipe, every, backend=backend, strict=True):
        args, kwargs = first_call(pipe, prompt, **call)
        tracker = session_of(pipe).tracker
        tracker.levels[:] = [phase.below for phase in phases]

        def run() -> Any:
            with torch.no_grad():
                return transformer(*args, **kwargs)

        for _ in range(rounds + 1):
            for step, name in enumerate(names):
                tracker.steps_done = step
                spent[name].append(seconds(run, pipe.device))
    typical = {name: float(np.quantile(times[1:], 0.25)) for name, times in spent.items()}
    total = sum(typical[plan.schedule.at(level)] for level in levels)
    return {"pass_seconds": typical, "speedup": len(levels) * typical[DENSE] / total}
