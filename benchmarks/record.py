"""What every result file says about where it came from."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def provenance() -> dict[str, Any]:
    """Machine, versions and commit (AJOUR_COMMIT where there is no git checkout)."""
    commit = os.environ.get("AJOUR_COMMIT")
    if commit is None:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "commit": commit,
        "gpu": gpu,
        "cpu": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()}
        | {name: found for name in ("torch", "triton", "diffusers") if (found := _version(name))},
    }


def save(path: str | Path, rows: list[dict[str, Any]], **extra: Any) -> None:
    """Write a result file."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    data = provenance() | extra | {"rows": rows}
    Path(path).write_text(json.dumps(data, indent=1) + "\n")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
