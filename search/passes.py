"""How long a plan's passes really take, in turns with dense ones, so that load hits them alike."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from ajour.patterns import Captured
from ajour.pipelines.devices import pipeline_device
from ajour.pipelines.enable import session_of, sparse
from ajour.schedule import DENSE, Phase, Schedule
from ajour.search.timing import LayerTimer, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ajour.plan import Plan

ROUNDS = 4
"""Timings of every pass, in turns."""

MEASURING = "dense+capture"
"""Name of the timed dense passes in which captured maps are measured; no assignment can have it."""


@dataclass(frozen=True)
class Turns:
    """Passes that were timed in turns.

    Attributes:
        passes: seconds of whole passes by name, one per round.
        layers: seconds that each layer spends in the operator, by name of the pass: (rounds,
            layers); 0 where attention is stock.
        orders: names in the order of their passes, one list per round.
    """

    passes: dict[str, list[float]]
    layers: dict[str, NDArray[np.float64]]
    orders: list[list[str]]


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
    pipe: Any,
    plan: Plan,
    prompt: str,
    backend: str | None,
    rounds: int,
    *,
    measuring: bool = False,
    **call: Any,
) -> Turns:
    """Time a dense pass and one under each assignment of a plan, in a new order in each round.

    Args:
        pipe: a supported pipeline with one transformer, not enabled.
        plan: the plan; its schedule does not matter.
        prompt: any prompt.
        backend: the operator's backend; None chooses.
        rounds: timings of each, after one that does not count.
        measuring: time dense passes that measure captured maps too; the plan must have some.
        call: further arguments of the pipeline's call.

    Returns:
        Times by assignment, `dense` before them; after them `dense+capture` if asked for.
    """
    # Captured maps are measured in a dense step if the next one needs them.
    named = sorted(plan.assignments, key=lambda name: not needs_capture(plan, name))
    names = [DENSE, *named]
    phases = tuple(Phase(1 - index / len(names), name) for index, name in enumerate(names))
    every = replace(plan, schedule=Schedule(phases))
    spent: dict[str, list[float]] = {name: [] for name in names}
    within: dict[str, list[list[float]]] = {name: [] for name in names}
    args, kwargs = first_call(pipe, prompt, **call)
    device, rng = pipeline_device(pipe), np.random.default_rng(0)
    with sparse(pipe, every, backend=backend, strict=True):
        session = session_of(pipe)
        tracker = session.tracker
        tracker.levels[:] = [phase.from_noise_level for phase in phases]
        timers = []
        for layer in session.runtimes[0].family.layers(pipe.transformer):
            timers.append(LayerTimer(device))
            layer.processor.context.timer = torch.compiler.disable(timers[-1])

        def run() -> Any:
            with torch.no_grad():
                return pipe.transformer(*args, **kwargs)

        # The first round measures maps where they are needed, in its dense pass, so it keeps the
        # order of the steps; stock attention has not run in it then, so it does once more.
        orders = [np.arange(len(names)), *(rng.permutation(len(names)) for _ in range(rounds))]
        for order in tqdm(orders, desc="time", unit="round", disable=None):
            for step in order.tolist():
                name = names[step]
                tracker.steps_done = step
                spent[name].append(seconds(run, device))
                within[name].append([timer.take() for timer in timers])
            if len(spent[DENSE]) == 1 and any(needs_capture(plan, name) for name in named):
                tracker.steps_done = 0
                run()
        if measuring:  # apart, as the first pass with new maps has to expand them
            tracker.steps_done = 0
            for dense in list(spent[DENSE]):
                tracker.runs += 1
                measured = seconds(run, device)  # the step's next pass measures nothing
                spent.setdefault(MEASURING, []).append(dense + measured - seconds(run, device))
    return Turns(
        {name: times[1:] for name, times in spent.items()},
        {name: np.array(times[1:]) for name, times in within.items()},
        [[names[step] for step in order] for order in orders[1:]],
    )


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
        measured: medians; `attention_seconds`, spent in the operator in a run's mean sparse pass;
        and `speedup` of a run of these steps, the median over the rounds.
    """
    steps = steps_run(plan, levels)
    turns = pass_turns(pipe, plan, prompt, backend, rounds, measuring=MEASURING in steps, **call)
    spent = {name: np.array(times) for name, times in turns.passes.items()}
    if MEASURING in steps:
        spent[MEASURING] = (spent[MEASURING] + (passes - 1) * spent[DENSE]) / passes
    total = np.sum([spent[name] for name in steps], axis=0)
    thin = [turns.layers[name].sum(axis=1) for name in steps if name not in (DENSE, MEASURING)]
    return {
        "pass_seconds": {name: float(np.median(times)) for name, times in spent.items()},
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
