"""What a search will do and how long it will take, from a short probe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ajour.pipelines.auto import model_of
from ajour.pipelines.devices import pipeline_device
from ajour.search.baselines import SHOWN
from ajour.search.calibrate import SAMPLES, band_starts, score
from ajour.search.candidates import default_candidates
from ajour.search.costs import layer_rows
from ajour.search.measure import layer_groups, probed_steps
from ajour.search.passes import ROUNDS
from ajour.search.probe import probe
from ajour.search.timing import seconds

if TYPE_CHECKING:
    from ajour.search.settings import Settings

USUAL_TRIES = {"psnr": (1, 2), "speedup": (3, 1), "density": (1, 1)}
"""Plans that are timed, and that are verified, until a target holds, as a rule."""

SPARSE_SHARE = 0.45
"""Attention time of the plans that are run, relative to dense, as a rule."""


def estimate(pipe: Any, settings: Settings, processes: int = 1) -> list[dict[str, Any]]:
    """The stages of a search with their expected seconds.

    Args:
        pipe: a supported pipeline with one transformer, not enabled.
        settings: what is asked for.
        processes: that share the prompts.

    Returns:
        `stage`, `work` (in words) and `seconds` of each.
    """
    found = probe(pipe, settings.calibration[0], settings.backend, **settings.call)
    grid = found.grid
    model = model_of(pipe.transformer)
    candidates = default_candidates(grid)
    dtype, device = pipe.transformer.dtype, pipeline_device(pipe)
    shape = (1, grid.seq_len, model["heads"], model["head_dim"])
    q, k, v = (torch.randn(shape, device=device, dtype=dtype) for _ in range(3))
    patterns = list(candidates.values())

    def scored() -> object:
        return score(q, k, v, grid, patterns, None, SAMPLES)

    scoring = min(seconds(scored, device) for _ in range(2))
    steps = found.steps
    starts = band_starts(steps, settings.bands)
    attention = max(0.0, found.dense_pass - found.skip_pass)
    sparse_pass = found.skip_pass + SPARSE_SHARE * attention
    step = found.passes * found.dense_pass
    sparse_run = steps * found.passes * sparse_pass + found.around
    calibration, verification = len(settings.calibration), len(settings.verification)
    timed, verified = USUAL_TRIES[settings.target.kind]
    each = (
        steps * step
        + len(probed_steps(steps)) * (len(layer_groups(model["layers"])) + 1) * found.dense_pass
        + len(starts) * found.passes * model["layers"] * scoring
        + sum(steps - start for start in starts) * found.passes * sparse_pass
    )
    rows = len(layer_rows(len(candidates), model["layers"], model["heads"]))
    mixed = rows // model["layers"] * sparse_pass
    timing = (ROUNDS + 1) * (found.dense_pass + found.skip_pass + mixed)
    plan_timing = (ROUNDS + 1) * (found.dense_pass + len(starts) * sparse_pass)
    shared = -(-verification // processes)
    stages = [
        (
            "calibrate",
            f"{calibration} prompts, {len(candidates)} candidates on "
            f"{model['layers']} x {model['heads']} heads in {len(starts)} bands of steps",
            -(-calibration // processes) * each,
        ),
        (
            "time",
            f"{rows} layers of one pattern or mixed, in whole passes, {ROUNDS} times",
            timing,
        ),
        ("dense", f"{verification} verification prompts", shared * (steps * step + found.around)),
        (
            "verify",
            f"about {timed} timed by passes, {verified} run on {verification} verification prompts",
            timed * plan_timing + verified * shared * sparse_run,
        ),
        (
            "compare",
            f"{SHOWN} plans of one pattern each on the same prompts",
            SHOWN * (shared * sparse_run + plan_timing / 2),
        ),
    ]
    if settings.costs is not None:
        stages = [stage for stage in stages if stage[0] != "time"]
    return [
        {"stage": stage, "work": work, "seconds": round(spent, 1)} for stage, work, spent in stages
    ]
