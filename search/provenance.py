"""Where a plan came from: model, device, versions."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from ajour.pipelines.generate import VERSIONS, device_name

if TYPE_CHECKING:
    import torch

SAMPLED = 64
"""Values of each parameter that the fingerprint reads."""


def fingerprint(transformer: torch.nn.Module) -> str:
    """Sixteen hex digits that stand for a model's weights: shapes and sampled values."""
    found = hashlib.sha256()
    for name, value in sorted(transformer.state_dict().items()):
        found.update(f"{name} {tuple(value.shape)} ".encode())
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
        "device": device_name(pipe.device),
        "dtype": str(next(transformer.parameters()).dtype).removeprefix("torch."),
        "versions": {"python": platform.python_version()}
        | {name: found for name in VERSIONS if (found := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
