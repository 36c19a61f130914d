"""How much of a transformer's time goes into self-attention, measured while it runs."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ajour.pipelines.devices import pipeline_device
from ajour.pipelines.enable import transformers_of
from ajour.pipelines.stopwatch import LayerTimer
from ajour.processors import family_of

if TYPE_CHECKING:
    from collections.abc import Iterator


class AttentionClock:
    """Times every self-attention module, projections included, and every whole forward pass.

    Args:
        pipe: a supported pipeline.
    """

    def __init__(self, pipe: Any) -> None:
        device = pipeline_device(pipe)
        self._transformers = transformers_of(pipe)
        self._timers = {"attention": LayerTimer(device), "whole": LayerTimer(device)}
        self._seconds: dict[str, dict[str, float]] = {}

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Measure within the block."""
        marks = {name: _without_arguments(timer) for name, timer in self._timers.items()}
        with ExitStack() as hooks:
            for transformer in self._transformers:
                layers = family_of(transformer).layers(transformer)
                for name, modules in (("attention", layers), ("whole", [transformer])):
                    for module in modules:
                        hooks.enter_context(module.register_forward_pre_hook(marks[name]))
                        hooks.enter_context(module.register_forward_hook(marks[name]))
            yield

    def close_step(self, label: str, step: int) -> None:
        """Add the time since the last step to a label; step 0 starts the label at 0."""
        if step == 0:
            self._seconds[label] = dict.fromkeys(self._timers, 0.0)
        for name, timer in self._timers.items():
            self._seconds[label][name] += timer.take()

    def share(self, label: str) -> float | None:
        """Self-attention's share of the transformer's time under a label; None if unknown."""
        seconds = self._seconds.get(label)
        return seconds["attention"] / seconds["whole"] if seconds and seconds["whole"] else None


def _without_arguments(timer: LayerTimer) -> Any:
    return lambda *_: timer()
