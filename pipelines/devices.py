"""Where transformers and pipelines run, which need not be where their weights are."""

from __future__ import annotations

from typing import Any

import torch

from ajour.processors import Obstacle


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
