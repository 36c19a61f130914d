"""A short run of a pipeline that tells what a search needs to know: grid, passes, seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ajour.patterns import Skip
from ajour.pipelines.enable import session_of, sparse, transformers_of
from ajour.plan import Plan
from ajour.search.calibrate import full_plan
from ajour.search.passes import first_call
from ajour.search.timing import seconds

if TYPE_CHECKING:
    from ajour.grid import TokenGrid

STEPS = 2
"""Steps of the run."""


@dataclass(frozen=True)
class Probe:
    """What a short run told.

    Attributes:
        grid: the token grid.
        steps: denoising steps of a whole run.
        passes: passes of the transformer per step.
        dense_pass: seconds of a pass with stock attention.
        skip_pass: seconds of a pass in which the operator skips all heads.
        around: seconds of a run outside of denoising: text before, decoding after.
    """

    grid: TokenGrid
    steps: int
    passes: int
    dense_pass: float
    skip_pass: float
    around: float


def probe(
    pipe: Any, prompt: str, backend: str | None = None, rounds: int = 3, **options: Any
) -> Probe:
    """Run two steps of a pipeline, then time single passes with and without attention.

    Args:
        pipe: a supported pipeline with one transformer, not enabled.
        prompt: any prompt.
        backend: the operator's backend; None chooses.
        rounds: timings of each kind of pass; their medians are taken.
        options: further arguments of the pipeline's call.

    Raises:
        TypeError: if the pipeline has no supported transformer, or more than one.
        RuntimeError: if the operator cannot run its attention, saying why.
    """
    if len(transformers_of(pipe)) > 1:
        raise TypeError(
            f"{type(pipe).__name__} has two transformers; the search handles one: give the plan "
            "of a search on each, or write one by hand"
        )
    transformer = pipe.transformer
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    with sparse(pipe, _skip_plan(transformer), backend=backend, strict=True):
        args, kwargs = first_call(pipe, prompt, **options)
        session = session_of(pipe)
        steps, grid = len(session.tracker.levels), session.runtimes[0].grid
        hook = transformer.register_forward_pre_hook(count)
        start = time.perf_counter()
        try:
            pipe(prompt, **options | {"num_inference_steps": STEPS})
        finally:
            hook.remove()
        spent = time.perf_counter() - start

        def run() -> Any:
            with torch.no_grad():
                return transformer(*args, **kwargs)

        skipped = [seconds(run, pipe.device) for _ in range(rounds)]
    dense = [seconds(run, pipe.device) for _ in range(rounds)]
    assert grid is not None
    skip_pass = float(np.median(skipped))
    return Probe(
        grid=grid,
        steps=steps,
        passes=calls // STEPS,
        dense_pass=float(np.median(dense)),
        skip_pass=skip_pass,
        around=max(0.0, spent - calls * skip_pass),
    )


def _skip_plan(transformer: torch.nn.Module) -> Plan:
    plan = full_plan(transformer)
    return Plan(plan.model, {"full": Skip()}, plan.assignments, plan.schedule)
