"""Naming the machine that something ran on."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = ("ajour", "torch", "diffusers", "transformers", "triton")


def device_name(device: torch.device) -> str:
    """For people: the GPU's name, or the CPU's with its thread count."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter; only of those that are installed."""
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed
