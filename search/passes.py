"""How long a plan's passes really take, in turns with dense ones, so that load hits them alike."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ajour.patterns import Captured, Skip
from ajour.pipelines.devices import pipeline_device
from ajour.pipelines.enable import session_of, sparse
from ajour.schedule import DENSE, Phase, Schedule
from ajour.search.timing import seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ajour.plan import Plan

ROUNDS = 4
"""Timings of every pass, in turns."""

SKIPPED = "skipped"
"""Name of the timed passes in which the operator skips all heads."""


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


def pass_turns(
    pipe: Any, plan: Plan, prompt: str, backend: str | None, rounds: int, **call: Any
) -> dict[str, list[float]]:
    """Time a pass under each assignment of a plan, a dense one and one without attention.

    Args:
        pipe: a supported pipeline with one transformer, not enabled.
        plan: the plan; its schedule does not matter.
        prompt: any prompt.
        backend: the operator's backend; None chooses.
        rounds: timings of each, after one that does not count.
        call: further arguments of the pipeline's call.

    Returns:
        Seconds by assignment, `dense` and `skipped` included, one per round.
    """
    # Captured maps are measured in a dense step if the next one needs them.
    named = sorted(plan.assignments, key=lambda name: not needs_capture(plan, name))
    names = [DENSE, *named, SKIPPED]
    phases = tuple(Phase(1 - index / len(names), name) for index, name in enumerate(names))
    nothing = (("skip",) * plan.model["heads"],) * plan.model["layers"]
    every = replace(
        plan,
        patterns=plan.patterns | {"skip": Skip()},
        assignments=plan.assignments | {SKIPPED: nothing},
        schedule=Schedule(phases),
    )
    spent: dict[str, list[float]] = {name: [] for name in names}
    args, kwargs = first_call(pipe, prompt, **call)
    device = pipeline_device(pipe)
    with sparse(pipe, every, backend=backend, strict=True):
        tracker = session_of(pipe).tracker
        tracker.levels[:] = [phase.below for phase in phases]

        def run() -> Any:
            with torch.no_grad():
                return pipe.transformer(*args, **kwargs)

        for _ in range(rounds + 1):
            for step, name in enumerate(names):
                tracker.steps_done = step
                spent[name].append(seconds(run, device))
    return {name: times[1:] for name, times in spent.items()}


def time_passes(
    pipe: Any,
    plan: Plan,
    levels: Sequence[float],
    prompt: str,
    backend: str | None = None,
    rounds: int = ROUNDS,
    **call: Any,
) -> dict[str, Any]:
    """What a plan's passes cost, and its speed-up over a run.

    Args:
        pipe: a supported pipeline with one transformer, not enabled.
        plan: the plan.
        levels: noise levels of the steps of a run.
        prompt: any prompt.
        backend: the operator's backend; None chooses.
        rounds: timings of each pass.
        call: further arguments of the pipeline's call.

    Returns:
        `pass_seconds` by assignment, `dense` included: medians; `attention_seconds`, of a run's
        mean sparse pass beyond one that skips all heads; and `speedup` of a run of these steps,
        the median over the rounds.
    """
    spent = {
        name: np.array(times)
        for name, times in pass_turns(pipe, plan, prompt, backend, rounds, **call).items()
    }
    steps = steps_run(plan, levels)
    total = np.sum([spent[name] for name in steps], axis=0)
    thin = [spent[name] - spent[SKIPPED] for name in steps if name != DENSE]
    return {
        "pass_seconds": {
            name: float(np.median(times)) for name, times in spent.items() if name != SKIPPED
        },
        "attention_seconds": float(np.median(np.mean(thin, axis=0))) if thin else 0.0,
        "speedup": float(np.median(len(steps) * spent[DENSE] / total)),
    }


def needs_capture(plan: Plan, assignment: str) -> bool:
    """Whether some head of an assignment has a captured pattern."""
    names = {name for layer in plan.assignments[assignment] for name in layer}
    return any(isinstance(plan.patterns[name], Captured) for name in names)


def steps_run(plan: Plan, levels: Sequence[float]) -> list[str]:
    """What every step of a run really is under a plan.

    Where captured patterns are needed and no dense step goes before, the first of their steps
    runs dense to measure them.
    """
    steps = list(plan.schedule.steps(levels))
    captured = (i for i, use in enumerate(steps) if use != DENSE and needs_capture(plan, use))
    first = next(captured, None)
    if first is not None and (first == 0 or steps[first - 1] != DENSE):
        steps[first] = DENSE
    return steps
