"""The stopwatch: seconds of a call or of a layer's attention, all of a GPU's work included."""

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
        if self._device.type == "cuda":
            mark = torch.cuda.Event(enable_timing=True)
            mark.record(torch.cuda.current_stream(self._device))
            self._marks.append(mark)
        else:
            self._marks.append(now(self._device))

    def take(self) -> float:
        """Seconds in the operator since `take` was last called; the device must be idle."""
        marks, self._marks = self._marks, []
        pairs = zip(marks[::2], marks[1::2], strict=True)
        if self._device.type == "cuda":
            return float(sum(start.elapsed_time(end) / 1e3 for start, end in pairs))
        return float(sum(end - start for start, end in pairs))
