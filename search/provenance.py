"""Where a plan came from: model, device, versions."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from ajour.pipelines.devices import pipeline_device
from ajour.pipelines.machine import device_name, versions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from ajour.search.settings import Settings

SAMPLED = 64
"""Values of each parameter that the fingerprint reads."""


def fingerprint(transformer: torch.nn.Module) -> str:
    """Sixteen hex digits that stand for a model's weights: shapes and sampled values.

    Weights that are offloaded out of the module count by their shape alone.
    """
    found = hashlib.sha256()
    for name, value in sorted(transformer.state_dict().items()):
        found.update(f"{name} {tuple(value.shape)} ".encode())
        if value.is_meta:
            continue
        flat = value.flatten()
        step = max(1, len(flat) // SAMPLED)
        found.update(flat[::step][:SAMPLED].float().cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def origin(pipe: Any) -> dict[str, Any]:
    """Model, device and versions of this process."""
    transformer = pipe.transformer
    return {
        "pipeline": type(pipe).__name__,
        "fingerprint": fingerprint(transformer),
        "device": device_name(pipeline_device(pipe)),
        "dtype": str(transformer.dtype).removeprefix("torch."),
        "versions": versions(),
    }


def provenance(pipe: Any, settings: Settings, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a searched plan says about itself.

    Args:
        pipe: the pipeline that was searched.
        settings: what was asked for.
        facts: of the outcome.
    """
    chosen = facts["chosen"]
    verified = ("psnr_db", "ssim", "warp", "dense_warp", "speedup", "run_seconds")
    return {
        "made_by": "ajour search",
        "model": settings.model,
        **origin(pipe),
        "grid": facts["grid"],
        "call": dict(settings.call),
        "steps": facts["steps"],
        "seed": settings.seed,
        "prompts": settings.prompts_digest,
        "target": facts["target"],
        "target_met": facts["met"],
        "target_met_by": facts["met_by"],
        "density": round(facts["density"], 4),
        "predicted": {
            "seconds": round(chosen["seconds"], 4),
            "speedup": round(facts["dense_seconds"] / chosen["seconds"], 4),
        },
        "verified": {name: float(f"{chosen[name]:.5g}") for name in verified}
        | {"prompts": len(settings.verification)},
    }
