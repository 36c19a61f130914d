"""How much of a transformer's time goes into self-attention, measured while it runs."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from ajour.pipelines.enable import transformers_of
from ajour.processors import family_of

if TYPE_CHECKING:
    from collections.abc import Iterator


class AttentionClock:
    """Times every self-attention module, projections included, and every whole forward pass.

    On a GPU by events, which do not make it wait. `close_step` is to be called after each step.

    Args:
        pipe: a supported pipeline.
    """

    def __init__(self, pipe: Any) -> None:
        self._cuda = pipe.device.type == "cuda"
        self._transformers = transformers_of(pipe)
        self._open: dict[int, Any] = {}
        self._spans: dict[str, list[tuple[Any, Any]]] = {"attention": [], "whole": []}
        self._spent: dict[str, dict[str, float]] = {}

    @contextmanager
    def listen(self) -> Iterator[AttentionClock]:
        """Measure within the block."""
        hooks = []
        for transformer in self._transformers:
            family = family_of(transformer)
            groups = {"attention": family.layers(transformer), "whole": [transformer]}
            for name, modules in groups.items():
                for module in modules:
                    hooks.append(module.register_forward_pre_hook(self._begin))
                    hooks.append(module.register_forward_hook(self._end(name)))
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()

    def close_step(self, label: str, step: int) -> None:
        """Add what was measured since the last step to a label; step 0 starts it anew."""
        if step == 0:
            self._spent[label] = dict.fromkeys(self._spans, 0.0)
        for name, spans in self._spans.items():
            self._spent[label][name] += sum(self._seconds(*span) for span in spans)
            spans.clear()

    def share(self, label: str) -> float | None:
        """Self-attention's share of the transformer's time under a label; None if unknown."""
        spent = self._spent.get(label)
        return spent["attention"] / spent["whole"] if spent and spent["whole"] > 0 else None

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _begin(self, module: torch.nn.Module, _args: Any) -> None:
        self._open[id(module)] = self._now()

    def _end(self, name: str) -> Any:
        def end(module: torch.nn.Module, _args: Any, _output: Any) -> None:
            begun = self._open.pop(id(module), None)
            if begun is not None:
                self._spans[name].append((begun, self._now()))

        return end

    def _seconds(self, begun: Any, ended: Any) -> float:
        if not self._cuda:
            return float(ended - begun)
        ended.synchronize()
        return float(begun.elapsed_time(ended)) / 1e3
