"""The stopwatch: seconds of calls and of parts of a pass, all of a GPU's work included."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def timed(call: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """Result and seconds of a call, from an idle device to an idle device.

    Args:
        call: what to time.
        device: that it runs on.
    """
    start = now(device)
    result = call()
    return result, now(device) - start


def now(device: torch.device) -> float:
    """The time in seconds, once the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def mark(device: torch.device) -> Any:
    """The present point in a device's work, for `elapsed`; does not wait for the device."""
    if device.type != "cuda":
        return now(device)
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def elapsed(start: Any, end: Any) -> float:
    """Seconds between two marks; waits until the device is past the second."""
    if isinstance(end, float):
        return end - float(start)
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


class LayerTimer:
    """Times a layer's attention within passes, without waiting for the GPU in a pass.

    Call it before and after each call of the operator.

    Args:
        device: that passes run on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[Any] = []

    def __call__(self) -> None:
        """Note the time."""
        self._marks.append(mark(self._device))

    def take(self) -> float:
        """Seconds in the operator since `take` was last called."""
        marks, self._marks = self._marks, []
        pairs = zip(marks[::2], marks[1::2], strict=True)
        return sum((elapsed(*pair) for pair in pairs), 0.0)
