"""The state of one enabled pipeline: phase, tables, and what ran dense and why."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from ajour.lowering import lower
from ajour.processors import LayerContext, Obstacle, SparseProcessor, family_of
from ajour.schedule import DENSE

if TYPE_CHECKING:
    import torch

    from ajour.grid import TokenGrid
    from ajour.pipelines.steps import StepTracker
    from ajour.plan import Plan
    from ajour.processors import Family
    from ajour.table import BlockTable

logger = logging.getLogger("ajour")

MAX_GRIDS = 8
"""Tables of this many grids are kept; the least recently used go first."""


class TransformerRuntime:
    """Puts processors on one transformer and tells them, before each forward pass, what to run.

    Args:
        transformer: a supported diffusers transformer.
        plan: the plan, already checked against the transformer.
        tracker: the pipeline's step tracker.
        backend: the operator's backend, or None to choose.
        strict: raise instead of running dense where the plan cannot be followed.
    """

    def __init__(
        self,
        transformer: torch.nn.Module,
        plan: Plan,
        tracker: StepTracker,
        backend: str | None,
        strict: bool,
    ) -> None:
        self.transformer = transformer
        self.plan = plan
        self.tracker = tracker
        self.backend = backend
        self.strict = strict
        self.family: Family = family_of(transformer)
        self.fallbacks: list[str] = []
        self.phase = DENSE
        self.grid: TokenGrid | None = None
        self._tables: dict[tuple[TokenGrid, str, torch.device], list[BlockTable]] = {}
        self._layers = self.family.layers(transformer)
        self._contexts = [LayerContext(backend=backend) for _ in self._layers]
        for layer, context in zip(self._layers, self._contexts, strict=True):
            if type(layer.processor).__name__ in self.family.processor.stands_in_for:
                layer.processor = self.family.processor(layer.processor, context)
        self._hook = transformer.register_forward_pre_hook(self._before, with_kwargs=True)

    def release(self) -> None:
        """Put the stock processors back."""
        self._hook.remove()
        for layer, context in zip(self._layers, self._contexts, strict=True):
            context.tables = ()
            if isinstance(layer.processor, SparseProcessor):
                layer.processor = layer.processor.stock

    def tables(self, grid: TokenGrid, assignment: str, device: torch.device) -> list[BlockTable]:
        """The block table of every layer; lowered once per grid and assignment.

        Layers share all tensors but the map from heads to rows.
        """
        key = (grid, assignment, device)
        cached = self._tables.pop(key, None)
        if cached is None:
            start = time.perf_counter()
            layers = [self.plan.layer(assignment, i) for i in range(len(self._layers))]
            rows = list(dict.fromkeys(pattern for layer in layers for pattern in layer))
            shared = lower(rows, grid).to(device)
            cached = [shared.with_heads([rows.index(p) for p in layer]) for layer in layers]
            logger.debug(
                "lowered %s for %s in %.2f s", assignment, grid, time.perf_counter() - start
            )
        self._tables[key] = cached
        while len(self._tables) > MAX_GRIDS:
            self._tables.pop(next(iter(self._tables)))
        return cached

    def _before(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: Any) -> None:
        """Forward pre-hook: choose phase and tables."""
        self.phase = self.plan.schedule.at(self.tracker.noise_level)
        tables: list[list[BlockTable]] = []
        try:
            grids = self.family.grids(module, args, kwargs)
            self.grid = grids[0]
            if self.phase != DENSE:
                states = args[0] if args else kwargs["hidden_states"]
                tables = [self.tables(grid, self.phase, states.device) for grid in grids]
        except Obstacle as obstacle:
            self.grid = None
            if self.phase != DENSE:
                self._fall_back(str(obstacle))
        for index, (layer, context) in enumerate(zip(self._layers, self._contexts, strict=True)):
            context.tables = tuple(layers[index] for layers in tables)
            if context.tables and (reason := self.family.obstacle(layer)):
                self._fall_back(reason)
                context.tables = ()

    def _fall_back(self, reason: str) -> None:
        """Note that layers run dense; say so once, or raise under `strict`."""
        if self.strict:
            raise RuntimeError(f"strict: attention would run dense: {reason}")
        if reason not in self.fallbacks:
            self.fallbacks.append(reason)
            logger.warning("attention runs dense (stock): %s", reason)
