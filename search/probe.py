"""A short run of a pipeline that tells what a search needs to know: grid, passes, seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.patterns import Skip
from ajour.pipelines.enable import session_of, sparse, transformers_of
from ajour.plan import Plan
from ajour.search.calibrate import full_plan
from ajour.search.passes import first_call, pass_turns

if TYPE_CHECKING:
    import torch

    from ajour.grid import TokenGrid

STEPS = 2
"""Steps of the run."""


@dataclass(frozen=True)
class Look:
    """What a short run told.

    Attributes:
        grid: the token grid.
        steps: denoising steps of a whole run.
        passes: passes of the transformer per step.
    """

    grid: TokenGrid
    steps: int
    passes: int


@dataclass(frozen=True)
class Probe(Look):
    """A short run with its times.

    Attributes:
        dense_pass: seconds of a pass with stock attention.
        skip_pass: seconds of a pass in which the operator skips all heads.
        around: seconds of a run outside of denoising: text before, decoding after.
    """

    dense_pass: float
    skip_pass: float
    around: float


def searched(pipe: Any) -> torch.nn.Module:
    """The one transformer of a pipeline that search and bench can handle.

    Raises:
        TypeError: if the pipeline has no transformer, more than one, or only a second one.
    """
    found = transformers_of(pipe)
    if len(found) > 1:
        raise TypeError(
            f"{type(pipe).__name__} has two transformers; ajour search and ajour bench handle one. "
            "A plan can be given to each: ajour.enable(pipe.transformer, plan, "
            "scheduler=pipe.scheduler)"
        )
    if getattr(pipe, "transformer", None) is None:
        raise TypeError(
            f"{type(pipe).__name__} has a transformer_2 but no transformer; ajour search and ajour "
            "bench handle pipelines with just a transformer"
        )
    return found[0]


def look(
    pipe: Any, prompt: str, backend: str | None = None, decode: bool = False, **options: Any
) -> Look:
    """Run two steps of a pipeline without attention.

    Args:
        pipe: a supported pipeline with one transformer, not enabled.
        prompt: any prompt.
        backend: the operator's backend; None chooses.
        decode: decode the result too.
        options: further arguments of the pipeline's call.

    Raises:
        TypeError: if the pipeline has no supported transformer, or more than one.
        RuntimeError: if the operator cannot run its attention, saying why.
    """
    searched(pipe)
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    with sparse(pipe, _skip_plan(pipe.transformer), backend=backend, strict=True):
        first_call(pipe, prompt, **options)
        session = session_of(pipe)
        steps, grid = len(session.tracker.levels), session.runtimes[0].grid
        hook = pipe.transformer.register_forward_pre_hook(count)
        short = options | {"num_inference_steps": STEPS}
        try:
            pipe(prompt, **short if decode else short | {"output_type": "latent"})
        finally:
            hook.remove()
    assert grid is not None
    return Look(grid, steps, calls // STEPS)


def probe(
    pipe: Any, prompt: str, backend: str | None = None, rounds: int = 3, **options: Any
) -> Probe:
    """Look at a pipeline, and time the run and single passes with and without attention.

    Args:
        pipe: as for `look`.
        prompt: any prompt.
        backend: the operator's backend; None chooses.
        rounds: timings of each kind of pass; their medians are taken.
        options: further arguments of the pipeline's call.

    Raises:
        TypeError: as for `look`.
        RuntimeError: as for `look`.
    """
    start = time.perf_counter()
    found = look(pipe, prompt, backend, decode=True, **options)
    spent = time.perf_counter() - start
    turns = pass_turns(pipe, _skip_plan(pipe.transformer), prompt, backend, rounds, **options)
    dense_pass, skip_pass = (float(np.median(times)) for times in turns.passes.values())
    around = max(0.0, spent - STEPS * found.passes * skip_pass)
    return Probe(found.grid, found.steps, found.passes, dense_pass, skip_pass, around)


def _skip_plan(transformer: torch.nn.Module) -> Plan:
    plan = full_plan(transformer)
    return Plan(plan.model, {"full": Skip()}, plan.assignments, plan.schedule)
