"""The stages of a search and how long they will take, from a short probe."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ajour.patterns import Skip
from ajour.pipelines.stopwatch import timed
from ajour.search.calibrate.errors import score
from ajour.search.calibrate.prompt import layer_groups, probed_steps
from ajour.search.setup import Setup, uniform_plan
from ajour.search.shape import bands_of, run_shape
from ajour.search.solve.candidates import default_candidates
from ajour.search.solve.plan import COMPARED
from ajour.search.timing.layers import layer_rows
from ajour.search.timing.passes import ROUNDS, time_passes

if TYPE_CHECKING:
    from ajour.search.settings import Settings

USUAL_TRIES = {"psnr": (1, 2), "speedup": (3, 1), "density": (1, 1)}
"""Plans that are usually timed, and verified, until a target holds."""

SPARSE_SHARE = 0.45
"""Usual attention time of the plans that are run, relative to dense."""

PROBE_ROUNDS = 3
"""Timings of a dense pass and of a pass without attention."""


class Stage(NamedTuple):
    """A stage of a search: its name, what it does in words, and the seconds that it takes."""

    stage: str
    work: str
    seconds: float


def estimate(pipe: Any, settings: Settings, processes: int = 1) -> list[Stage]:
    """The stages of a search with their expected seconds, if processes share the prompts."""
    setup = Setup(pipe, settings.call, settings.backend)
    model, prompt = setup.model, settings.calibration[0]
    run, run_seconds = timed(lambda: run_shape(setup, prompt, decode=True), setup.device)
    grid, steps, passes = run.grid, run.steps, run.passes
    times = time_passes(setup, uniform_plan(setup.transformer, Skip()), prompt, PROBE_ROUNDS)
    dense_pass, skip_pass = (float(np.median(seconds)) for seconds in times.passes.values())
    around = max(0.0, run_seconds - passes * skip_pass)  # text encoder and VAE
    layers, heads = model["layers"], model["heads"]
    candidates = default_candidates(grid)
    shape = (1, grid.seq_len, heads, model["head_dim"])
    q, k, v = (
        torch.randn(shape, device=setup.device, dtype=setup.transformer.dtype) for _ in range(3)
    )
    call = partial(score, q, k, v, grid, list(candidates.values()), None)
    scoring = min(timed(call, setup.device)[1] for _ in range(2))
    divided = bands_of(settings, run)
    bands = len(divided.starts)
    sparse_pass = skip_pass + SPARSE_SHARE * max(0.0, dense_pass - skip_pass)
    dense_run = steps * passes * dense_pass
    sparse_run = steps * passes * sparse_pass + around
    calibration, verification = len(settings.calibration), len(settings.verification)
    timed_plans, verified_plans = USUAL_TRIES[settings.target.kind]
    per_prompt = (
        dense_run
        + len(probed_steps(divided)) * len(layer_groups(layers)) * dense_pass
        + bands * passes * layers * scoring
        + (bands + 1) / 2 * steps * passes * sparse_pass  # from the start of each band on
    )
    rows = len(layer_rows(len(candidates), layers, heads))
    mixed = rows // layers * sparse_pass
    plan_timing = (ROUNDS + 1) * (dense_pass + bands * sparse_pass)
    prompts = -(-verification // processes)
    where = " of the first of two transformers" if len(setup.transformers) > 1 else ""
    stages = {
        "calibrate": (
            f"{calibration} prompts, {len(candidates)} candidates on {layers} x {heads} heads in "
            f"{bands} bands of steps",
            -(-calibration // processes) * per_prompt,
        ),
        "time": (
            f"{rows} layers of one pattern or mixed, in whole passes{where}, {ROUNDS} times",
            (ROUNDS + 1) * (dense_pass + skip_pass + mixed),
        ),
        "dense": (f"{verification} verification prompts", prompts * (dense_run + around)),
        "verify": (
            f"about {timed_plans} timed by passes, {verified_plans} run on {verification} "
            "verification prompts",
            timed_plans * plan_timing + verified_plans * prompts * sparse_run,
        ),
        "compare": (
            f"{COMPARED} plans of one pattern each on the same prompts",
            COMPARED * (prompts * sparse_run + plan_timing / 2),
        ),
    }
    if settings.costs is not None:
        del stages["time"]
    return [Stage(stage, work, round(spent, 1)) for stage, (work, spent) in stages.items()]
