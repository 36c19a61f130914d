"""The stages of a search and how long they will take, from a short probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ajour.pipelines.stopwatch import timed
from ajour.search.calibrate.errors import score
from ajour.search.calibrate.prompt import layer_groups, probed_steps
from ajour.search.setup import Setup
from ajour.search.solve.candidates import default_candidates
from ajour.search.solve.single import COMPARED
from ajour.search.timing.layers import layer_rows
from ajour.search.timing.passes import ROUNDS
from ajour.search.timing.probe import probe

if TYPE_CHECKING:
    from ajour.search.settings import Settings

USUAL_TRIES = {"psnr": (1, 2), "speedup": (3, 1), "density": (1, 1)}
"""Plans that are usually timed, and verified, until a target holds."""

SPARSE_SHARE = 0.45
"""Usual attention time of the plans that are run, relative to dense."""


@dataclass(frozen=True)
class Stage:
    """A stage of a search.

    Attributes:
        stage: its name.
        work: what is done, in words.
        seconds: expected.
    """

    stage: str
    work: str
    seconds: float


def estimate(pipe: Any, settings: Settings, processes: int = 1) -> list[Stage]:
    """The stages of a search with their expected seconds.

    Args:
        pipe: a supported pipeline with one transformer, not enabled.
        settings: of the search.
        processes: number of processes that share the prompts.
    """
    setup = Setup(pipe, settings.call, settings.backend)
    probed = probe(setup, settings.calibration[0])
    grid, steps, passes = probed.shape.grid, probed.shape.steps, probed.shape.passes
    model = setup.model
    layers, heads = model["layers"], model["heads"]
    candidates = default_candidates(grid)
    shape = (1, grid.seq_len, heads, model["head_dim"])
    q, k, v = (torch.randn(shape, device=setup.device, dtype=setup.dtype) for _ in range(3))
    patterns = list(candidates.values())
    scoring = min(
        timed(lambda: score(q, k, v, grid, patterns, None), setup.device)[1] for _ in range(2)
    )
    bands = min(settings.bands, steps)
    attention = max(0.0, probed.dense_pass - probed.skip_pass)
    sparse_pass = probed.skip_pass + SPARSE_SHARE * attention
    dense_run = steps * passes * probed.dense_pass
    sparse_run = steps * passes * sparse_pass + probed.around
    calibration, verification = len(settings.calibration), len(settings.verification)
    timed_plans, verified_plans = USUAL_TRIES[settings.target.kind]
    per_prompt = (
        dense_run
        + len(probed_steps(steps)) * len(layer_groups(layers)) * probed.dense_pass
        + bands * passes * layers * scoring
        + (bands + 1) / 2 * steps * passes * sparse_pass  # from the start of each band on
    )
    rows = len(layer_rows(len(candidates), layers, heads))
    mixed = rows // layers * sparse_pass
    plan_timing = (ROUNDS + 1) * (probed.dense_pass + bands * sparse_pass)
    prompts = -(-verification // processes)
    stages = [
        Stage(
            "calibrate",
            f"{calibration} prompts, {len(candidates)} candidates on {layers} x {heads} heads in "
            f"{bands} bands of steps",
            -(-calibration // processes) * per_prompt,
        ),
        Stage(
            "time",
            f"{rows} layers of one pattern or mixed, in whole passes, {ROUNDS} times",
            (ROUNDS + 1) * (probed.dense_pass + probed.skip_pass + mixed),
        ),
        Stage(
            "dense",
            f"{verification} verification prompts",
            prompts * (dense_run + probed.around),
        ),
        Stage(
            "verify",
            f"about {timed_plans} timed by passes, {verified_plans} run on {verification} "
            "verification prompts",
            timed_plans * plan_timing + verified_plans * prompts * sparse_run,
        ),
        Stage(
            "compare",
            f"{COMPARED} plans of one pattern each on the same prompts",
            COMPARED * (prompts * sparse_run + plan_timing / 2),
        ),
    ]
    return [
        Stage(stage.stage, stage.work, round(stage.seconds, 1))
        for stage in stages
        if settings.costs is None or stage.stage != "time"
    ]
