"""The attention layers of one transformer: their processors, and what each of them is given."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ajour.processors import LayerState, SparseProcessor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ajour.capture import CapturedRows
    from ajour.pipelines.tables import Prepared
    from ajour.processors import Family
    from ajour.table import BlockTable

    Listener = Callable[..., None]


class Layers:
    """Puts processors on the layers of a transformer, and takes them off again.

    Args:
        transformer: the transformer.
        family: its family.
        backend: the operator's backend, or None to choose.
        report: called with the reason if a call of a layer runs dense.
        is_caller: whether the calling code is part of the pass that is under way.
    """

    def __init__(
        self,
        transformer: torch.nn.Module,
        family: Family,
        backend: str | None,
        report: Callable[[str], None],
        is_caller: Callable[[], bool],
    ) -> None:
        self.family = family
        self.modules = family.layers(transformer)
        self._report = report
        report = torch.compiler.disable(report)
        self._states = [
            LayerState(backend=backend, report=report, is_caller=is_caller) for _ in self.modules
        ]
        self._listeners: list[Listener] = []
        for layer, state in zip(self.modules, self._states, strict=True):
            processor = family.stand_in(layer.processor, state)
            if processor is not None:
                layer.processor = processor

    def __len__(self) -> int:
        return len(self.modules)

    def release(self) -> None:
        """Put the stock processors back."""
        self.clear()
        for layer, state in zip(self.modules, self._states, strict=True):
            state.report = None
            processor = layer.processor
            if isinstance(processor, SparseProcessor) and processor.state is state:
                layer.processor = processor.stock

    def clear(self, in_pass: bool = False) -> None:
        """Every layer runs stock; called where a pass begins and where it ends."""
        for state in self._states:
            state.tables, state.rows, state.listeners = (), (), ()
            state.sparse, state.in_pass = False, in_pass

    def begin(
        self, tokens: int, padding_end: int, masks_padding: bool, keys_alone: tuple[int, int]
    ) -> None:
        """Tell all layers the sequence of the pass, see `LayerState`."""
        for index, state in enumerate(self._states):
            state.tokens, state.padding_end = tokens, padding_end
            state.masks_padding, state.keys_alone = masks_padding, keys_alone
            state.listeners = tuple(partial(listener, index) for listener in self._listeners)

    def give(
        self, index: int, tables: tuple[BlockTable, ...], rows: tuple[CapturedRows, ...] = ()
    ) -> None:
        """What a layer attends through in this pass."""
        state = self._states[index]
        state.tables, state.rows, state.sparse = tables, rows, bool(tables)

    def give_sparse(self, prepared: Prepared) -> None:
        """Give every layer what `prepare` made for an assignment, or report why it runs dense."""
        for index, (tables, rows) in enumerate(prepared):
            reason = self.obstacle(index)
            if reason is None and rows is None:
                reason = "a layer was skipped in the step that measured its captured patterns"
            if reason is not None:
                self._report(reason)
            elif rows is not None:
                self.give(index, tables, rows)

    def give_dense(self, prepared: Prepared) -> None:
        """Give every layer that can attend through the operator what `prepare` made."""
        for index, (tables, _) in enumerate(prepared):
            if self.obstacle(index) is None:
                self.give(index, tables)

    def hear(self, index: int, listener: Listener) -> None:
        """Call a listener after a layer's attention in this pass."""
        state = self._states[index]
        state.listeners = (*state.listeners, listener)

    @contextmanager
    def listen(self, listener: Listener) -> Iterator[None]:
        """Within the block, hear every layer's attention that goes through the operator.

        Args:
            listener: called with the layer's index, q and k as attention sees them, v and the
                output, all (batch, tokens, heads, head_dim), and the token grid.
        """
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    @contextmanager
    def time(self, timers: Sequence[Callable[[], None]]) -> Iterator[None]:
        """Within the block, call each layer's timer right before and right after its attention.

        Args:
            timers: one per layer; stock attention does not call them.
        """
        before = [state.timer for state in self._states]
        self._set_timers(timers)
        try:
            yield
        finally:
            self._set_timers(before)

    def _set_timers(self, timers: Sequence[Callable[[], None] | None]) -> None:
        for state, timer in zip(self._states, timers, strict=True):
            state.timer = timer

    def obstacle(self, index: int) -> str | None:
        """Why a layer has to run dense as it is set up now, or None."""
        processor: Any = self.modules[index].processor
        if isinstance(processor, SparseProcessor) and processor.state is not self._states[index]:
            return "a layer's processor is of an earlier enable(); disable and enable again"
        return self.family.obstacle(self.modules[index])
