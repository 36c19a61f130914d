"""How much of a transformer's time goes into self-attention, measured while it runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ajour.pipelines.devices import pipeline_device
from ajour.pipelines.enable import transformers_of
from ajour.pipelines.stopwatch import elapsed, mark
from ajour.processors import family_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch


class AttentionClock:
    """Times every self-attention module, projections included, and every whole forward pass.

    On a GPU by events, which do not make it wait. Call `close_step` after each step.

    Args:
        pipe: a supported pipeline.
    """

    def __init__(self, pipe: Any) -> None:
        self._device = pipeline_device(pipe)
        self._transformers = transformers_of(pipe)
        self._starts: dict[int, Any] = {}
        self._spans: dict[str, list[tuple[Any, Any]]] = {"attention": [], "whole": []}
        self._seconds: dict[str, dict[str, float]] = {}

    @contextmanager
    def listen(self) -> Iterator[AttentionClock]:
        """Measure within the block."""
        hooks = []
        for transformer in self._transformers:
            layers = family_of(transformer).layers(transformer)
            for name, modules in (("attention", layers), ("whole", [transformer])):
                for module in modules:
                    hooks.append(module.register_forward_pre_hook(self._start))
                    hooks.append(module.register_forward_hook(self._end(name)))
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()

    def close_step(self, label: str, step: int) -> None:
        """Add the time since the last step to a label; step 0 starts the label at 0."""
        if step == 0:
            self._seconds[label] = dict.fromkeys(self._spans, 0.0)
        for name, spans in self._spans.items():
            self._seconds[label][name] += sum(elapsed(*span) for span in spans)
            spans.clear()

    def share(self, label: str) -> float | None:
        """Self-attention's share of the transformer's time under a label; None if unknown."""
        seconds = self._seconds.get(label)
        return seconds["attention"] / seconds["whole"] if seconds and seconds["whole"] else None

    def _start(self, module: torch.nn.Module, _args: Any) -> None:
        self._starts[id(module)] = mark(self._device)

    def _end(self, name: str) -> Any:
        def end(module: torch.nn.Module, _args: Any, _output: Any) -> None:
            start = self._starts.pop(id(module), None)
            if start is not None:
                self._spans[name].append((start, mark(self._device)))

        return end
