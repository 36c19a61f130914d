"""Where a plan comes from: model, device, versions, settings, figures."""

from __future__ import annotations

import hashlib
from itertools import chain
from typing import TYPE_CHECKING, Any

from ajour.pipelines.machine import device_name, versions
from ajour.search.settings import described, digest
from ajour.search.work import rounded

if TYPE_CHECKING:
    import torch

    from ajour.search.results import Outcome
    from ajour.search.setup import Setup

SAMPLED = 64
"""Values of each parameter that go into the fingerprint."""

VERIFIED = (
    "psnr_db", "ssim", "perceptual", "banding", "flicker", "warp", "dense_warp", "speedup",
    "run_seconds",
)  # fmt: skip
"""Figures of the chosen plan."""


def fingerprint(*transformers: torch.nn.Module) -> str:
    """Sixteen hex digits that stand for the weights of models: shapes and sampled values.

    Weights that are offloaded out of a module count by their shape alone.
    """
    hashed = hashlib.sha256()
    weights = (sorted(transformer.state_dict().items()) for transformer in transformers)
    for name, value in chain.from_iterable(weights):
        hashed.update(f"{name} {tuple(value.shape)} ".encode())
        if value.is_meta:
            continue
        flat = value.flatten()
        step = max(1, len(flat) // SAMPLED)
        hashed.update(flat[::step][:SAMPLED].float().cpu().numpy().tobytes())
    return hashed.hexdigest()[:16]


def origin(setup: Setup) -> dict[str, Any]:
    """Pipeline, weights, device and versions of this process, as JSON."""
    return {
        "pipeline": setup.name,
        "fingerprint": fingerprint(*setup.transformers),
        "device": device_name(setup.device),
        "dtype": setup.dtype,
        "versions": versions(),
    }


def provenance(setup: Setup, outcome: Outcome) -> dict[str, Any]:
    """The provenance of a searched plan, as JSON."""
    settings, chosen = outcome.settings, outcome.chosen
    figures = chosen.to_dict()
    return {
        "made_by": "ajour search",
        "model": settings.model,
        **({} if settings.lora is None else {"lora": settings.lora}),
        **origin(setup),
        "grid": str(outcome.grid),
        "call": described(settings.call),
        "steps": len(outcome.bands.noise_levels),
        "seed": settings.seed,
        "prompts": digest([settings.calibration, settings.verification]),
        "target": settings.target.to_dict(),
        "target_met": outcome.met,
        "target_met_by": outcome.met_by,
        "density": round(outcome.density, 4),
        "predicted": {
            "seconds": round(chosen.seconds, 4),
            "speedup": round(outcome.predicted_speedup, 4),
        },
        "verified": {name: rounded(figures[name]) for name in VERIFIED}
        | {"prompts": len(settings.verification)},
    }
