"""The seconds of every step in self-attention and in the whole transformer, measured in a run."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from ajour.pipelines.devices import pipeline_device
from ajour.pipelines.enable import transformers_of
from ajour.pipelines.stopwatch import LayerTimer
from ajour.processors import family_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class StepTime(NamedTuple):
    """Seconds of a step.

    Attributes:
        attention: in self-attention, projections included.
        rest: in the rest of the transformer.
    """

    attention: float
    rest: float

    @property
    def total(self) -> float:
        """In the transformer."""
        return self.attention + self.rest


class AttentionClock:
    """Times every self-attention module, projections included, and every whole forward pass.

    Args:
        pipe: a supported pipeline.
    """

    def __init__(self, pipe: Any) -> None:
        device = pipeline_device(pipe)
        self._transformers = transformers_of(pipe)
        self._attention, self._whole = LayerTimer(device), LayerTimer(device)
        self._steps: dict[str, list[StepTime]] = {}

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Measure within the block."""
        with ExitStack() as hooks:
            for transformer in self._transformers:
                layers = family_of(transformer).layers(transformer)
                for timer, modules in ((self._attention, layers), (self._whole, [transformer])):
                    mark = _without_arguments(timer)
                    for module in modules:
                        hooks.enter_context(module.register_forward_pre_hook(mark))
                        hooks.enter_context(module.register_forward_hook(mark))
            yield

    def close_step(self, label: str, step: int) -> None:
        """End a step under a label; step 0 starts the label anew."""
        if step == 0:
            self._steps[label] = []
        attention, whole = self._attention.take(), self._whole.take()
        self._steps[label].append(StepTime(attention, whole - attention))

    def steps(self, label: str) -> tuple[StepTime, ...]:
        """The times of the steps under a label."""
        return tuple(self._steps.get(label, ()))


def attention_share(steps: Sequence[StepTime]) -> float | None:
    """Self-attention's share of the transformer's time in some steps; None if unknown."""
    total = sum(step.total for step in steps)
    return sum(step.attention for step in steps) / total if total else None


def _without_arguments(timer: LayerTimer) -> Any:
    return lambda *_: timer()
