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
from ajour.prologue import Norm
from ajour.schedule import DENSE, Phase, Schedule
from ajour.search.calibrate import full_plan
from ajour.search.timing import AttentionCall, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ajour.grid import TokenGrid
    from ajour.plan import Plan
    from ajour.prologue import Prologue

ROUNDS = 4
"""Timings of every pass, in turns."""

SKIPPED = "skipped"
"""Name of the timed passes in which the operator skips all heads."""


MEASURING = "dense+capture"
"""Name of the timed dense passes in which captured maps are measured; no assignment can have it."""


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


def layer_calls(pipe: Any, prompt: str, backend: str | None, **call: Any) -> list[AttentionCall]:
    """What the middle layer gives the operator in the first pass of a run.

    Args:
        pipe: a supported pipeline with one transformer, not enabled.
        prompt: any prompt.
        backend: the operator's backend; None chooses.
        call: further arguments of the pipeline's call.
    """
    found: list[AttentionCall] = []

    def record(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        grid: TokenGrid,
        prologue: Prologue | None,
    ) -> None:
        if prologue is not None:  # offloading takes the weights back
            prologue = replace(prologue, q_norm=_own(prologue.q_norm), k_norm=_own(prologue.k_norm))
        found.append(AttentionCall(q, k, v, grid, prologue))

    args, kwargs = first_call(pipe, prompt, **call)
    plan = full_plan(pipe.transformer)
    with sparse(pipe, plan, backend=backend, strict=True), torch.no_grad():
        layers = session_of(pipe).runtimes[0].family.layers(pipe.transformer)
        layers[len(layers) // 2].processor.context.recorder = record
        pipe.transformer(*args, **kwargs)
    return found


def _own(norm: Norm | None) -> Norm | None:
    return None if norm is None else Norm(norm.weight.detach().clone(), norm.eps)


def pass_turns(
    pipe: Any,
    plan: Plan,
    prompt: str,
    backend: str | None,
    rounds: int,
    *,
    measuring: bool = False,
    **call: Any,
) -> dict[str, list[float]]:
    """Time a pass under each assignment of a plan, a dense one and one without attention.

    Args:
        pipe: a supported pipeline with one transformer, not enabled.
        plan: the plan; its schedule does not matter.
        prompt: any prompt.
        backend: the operator's backend; None chooses.
        rounds: timings of each, after one that does not count.
        measuring: time dense passes that measure captured maps too; the plan must have some.
        call: further arguments of the pipeline's call.

    Returns:
        Seconds by assignment, `dense` and `skipped` included, one per round; `dense+capture` too
        if asked for.
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
        if measuring:  # apart, as the first pass with new maps has to expand them
            tracker.steps_done = 0
            for dense in list(spent[DENSE]):
                tracker.runs += 1
                measured = seconds(run, device)  # the step's next pass measures nothing
                spent.setdefault(MEASURING, []).append(dense + measured - seconds(run, device))
    return {name: times[1:] for name, times in spent.items()}


def time_passes(
    pipe: Any,
    plan: Plan,
    levels: Sequence[float],
    prompt: str,
    backend: str | None = None,
    rounds: int = ROUNDS,
    passes: int = 1,
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
        passes: passes of a denoising step, of which the first one measures captured maps.
        call: further arguments of the pipeline's call.

    Returns:
        `pass_seconds` by assignment, `dense` included, and `dense+capture` where maps are
        measured: medians; `attention_seconds`, of a run's mean sparse pass beyond one that skips
        all heads; and `speedup` of a run of these steps, the median over the rounds.
    """
    steps = steps_run(plan, levels)
    turns = pass_turns(pipe, plan, prompt, backend, rounds, measuring=MEASURING in steps, **call)
    spent = {name: np.array(times) for name, times in turns.items()}
    if MEASURING in steps:
        spent[MEASURING] = (spent[MEASURING] + (passes - 1) * spent[DENSE]) / passes
    total = np.sum([spent[name] for name in steps], axis=0)
    thin = [spent[name] - spent[SKIPPED] for name in steps if name not in (DENSE, MEASURING)]
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

    A dense step before one with captured patterns measures them, and so does the first of their
    steps if none goes before, which then runs dense.
    """
    steps = plan.schedule.steps(levels)

    def captured(use: str) -> bool:
        return use != DENSE and needs_capture(plan, use)

    found: list[str] = []
    for use, following in zip(steps, [*steps[1:], DENSE], strict=True):
        known = MEASURING in found
        measures = captured(following) if use == DENSE else captured(use) and not known
        found.append(MEASURING if measures else use)
    return found
