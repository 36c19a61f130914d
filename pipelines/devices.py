"""Where transformers and pipelines run, which need not be where their weights are."""

from __future__ import annotations

from typing import Any

import torch

from ajour.pipelines.usage import BadUsage
from ajour.processors import Obstacle
from ajour.quoting import quoted


def execution_device(transformer: torch.nn.Module, inputs: torch.device) -> torch.device:
    """The device that a transformer's layers run on.

    Args:
        transformer: perhaps with one of accelerate's hooks, which moves inputs to its device.
        inputs: where the inputs of its forward pass are.
    """
    hook = getattr(transformer, "_hf_hook", None)
    devices = (getattr(part, "execution_device", None) for part in getattr(hook, "hooks", [hook]))
    device = next((device for device in devices if device is not None), inputs)
    return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)


def check_device(name: str | None) -> None:
    """Check that a device is there, before weights are loaded.

    Args:
        name: of the device, for example `cuda:1`; None for any.

    Raises:
        BadUsage: if torch knows no such device, or this machine has none.
    """
    if name is None:
        return
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadUsage(f"a device is cpu, cuda, or cuda:1 and so on, got {quoted(name)}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        there = f"{count} CUDA device{'s' if count > 1 else ''}" if count else "no CUDA device"
        raise BadUsage(
            f"device {quoted(name)} is not there: torch sees {there}; use --device cpu, or see "
            "ajour doctor"
        )


def check_devices(transformer: torch.nn.Module) -> None:
    """Raise Obstacle if a transformer's layers are spread over several devices."""
    places = getattr(transformer, "hf_device_map", {}).values()
    named = (f"cuda:{place}" if isinstance(place, int) else str(place) for place in places)
    devices = set(named) - {"cpu", "disk"}
    if len(devices) > 1:
        raise Obstacle(
            f"a device_map spreads the transformer over {', '.join(sorted(devices))}; "
            "sparse attention needs all its layers on one device"
        )


def pipeline_device(pipe: Any) -> torch.device:
    """The device that a pipeline runs on, also where its weights are offloaded."""
    device: torch.device = getattr(pipe, "_execution_device", None) or pipe.device
    return device
