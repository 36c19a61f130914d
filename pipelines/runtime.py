"""The state of one enabled transformer: what runs in a step, with which tables, and what not."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import torch

from ajour.capture import expand
from ajour.patterns import Full
from ajour.pipelines.auto import Auto, AutoPlanner, model_of
from ajour.pipelines.devices import check_devices, execution_device
from ajour.pipelines.machine import device_name
from ajour.pipelines.measure import CapturedMaps, Wanted, wanted
from ajour.pipelines.tables import TableCache, expanded
from ajour.processors import LayerContext, Obstacle, SparseProcessor, family_of
from ajour.schedule import DENSE

if TYPE_CHECKING:
    from ajour.capture import CapturedRows
    from ajour.grid import TokenGrid
    from ajour.patterns import Pattern
    from ajour.pipelines.steps import StepTracker
    from ajour.plan import Plan
    from ajour.processors import Family
    from ajour.schedule import Schedule
    from ajour.table import BlockTable

logger = logging.getLogger("ajour")

_passes = count(1)
"""Numbers the forward passes of all enabled transformers."""

EXPANDED_BYTES = 128 * 2**20
"""A phase's captured rows are kept as lists up to this size; further layers' are made per pass."""

PREPARED = 8
"""What layers get is kept for so many phases and grids; those prepared first go first."""


class TransformerRuntime:
    """Puts processors on one transformer and tells them, before each forward pass, what to run.

    Where a plan has captured patterns, the last dense step before they are needed also measures
    them, and so does a dense refresh step. A run that has no such step, or whose grid changes,
    gets one: its first sparse step runs dense instead. Maps are never carried to another run.

    Args:
        transformer: a supported diffusers transformer.
        plan: the plan, already checked against the transformer, or how to make one on the way.
        tracker: the pipeline's step tracker.
        backend: the operator's backend, or None to choose.
        strict: raise instead of running dense where the plan cannot be followed.
        trim: leave text padding out of dense phases too, instead of masking it.

    Attributes:
        grid: of the last forward pass; None before it, and if that had to run dense.
        device: that the last forward pass ran on; None before it.
        last_pass: number of the last forward pass among those of all enabled transformers.
    """

    def __init__(
        self,
        transformer: torch.nn.Module,
        plan: Plan | Auto,
        tracker: StepTracker,
        backend: str | None,
        strict: bool,
        trim: bool = False,
    ) -> None:
        self.transformer = transformer
        self.tracker = tracker
        self.backend = backend
        self.strict = strict
        self.trim = trim
        self.family: Family = family_of(transformer)
        self.fallbacks: list[str] = []
        self.notes: list[str] = []
        self.phase = DENSE
        self.grid: TokenGrid | None = None
        self.device: torch.device | None = None
        self.last_pass = 0
        self._layers = self.family.layers(transformer)
        self.auto = plan if isinstance(plan, Auto) else None
        self.plan: Plan | None = None if isinstance(plan, Auto) else plan
        self._measure: CapturedMaps | AutoPlanner | None = None
        self._maps: list[dict[Any, CapturedRows]] = []
        self._measured: tuple[int, int] | None = None
        self._measured_shape: tuple[int, int, int] | None = None
        self._tables = TableCache()
        self._prepared: dict[
            tuple[str, tuple[TokenGrid, ...], torch.device],
            list[tuple[tuple[BlockTable, ...], tuple[CapturedRows, ...] | None]],
        ] = {}
        self._prepared_run = 0
        self._wanted_by_name: dict[str, list[list[Wanted]]] = {}
        self._contexts = [LayerContext(backend=backend) for _ in self._layers]
        for layer, context in zip(self._layers, self._contexts, strict=True):
            processor = self.family.stand_in(layer.processor, context)
            if processor is not None:
                layer.processor = processor
        before = torch.compiler.disable(self._before)
        self._hook = transformer.register_forward_pre_hook(before, with_kwargs=True)

    def release(self) -> None:
        """Put the stock processors back."""
        self._hook.remove()
        for layer, context in zip(self._layers, self._contexts, strict=True):
            context.tables, context.rows, context.listener = (), (), None
            processor = layer.processor
            if isinstance(processor, SparseProcessor) and processor.context is context:
                layer.processor = processor.stock

    def densities(self, assignment: str) -> list[float | None]:
        """Density of every layer on the last grid, 1 if it runs dense; None if not known yet."""
        if self.plan is None or self.grid is None:
            return [None] * len(self._layers)
        tables = self._static_tables(self.grid, assignment, "cpu")
        found: list[float | None] = []
        for index, table in enumerate(tables):
            rows = self._rows(assignment, index)
            if self._obstacle(index) is not None or (rows is None and self._maps):
                found.append(1.0)
                continue
            if rows:
                table = expand([table], [[one.to("cpu") for one in rows]])[0]
            found.append(None if rows is None else table.density())
        return found

    def captured(self, assignment: str, layer: int) -> dict[int, torch.Tensor]:
        """The level maps that this run measured, by captured head of a layer: int8 (Nv, Nv)."""
        rows = self._rows(assignment, layer) if self.plan is not None else None
        return {
            head: levels
            for one in rows or ()
            for head, levels in zip(one.heads.tolist(), one.levels.unpack().cpu(), strict=True)
        }

    @property
    def schedule(self) -> Schedule:
        """The schedule of the present run."""
        if self.auto is not None:
            return self.auto.schedule(self._levels())
        assert self.plan is not None
        return self.plan.schedule

    def _before(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: Any) -> None:
        """Forward pre-hook: choose what every layer runs."""
        self.tracker.sync()
        self.last_pass = next(_passes)
        for context in self._contexts:
            context.tables, context.rows = (), ()
        self._settle()
        self.phase = DENSE
        grids: tuple[TokenGrid, ...] = ()
        try:
            check_devices(module)
            grids = self.family.grids(module, args, kwargs)
        except Obstacle as obstacle:
            if self._names()[0] != DENSE:
                self._fall_back(str(obstacle))
        self.grid = grids[0] if grids else None
        states = args[0] if args else kwargs["hidden_states"]
        self.device = device = execution_device(module, states.device)
        if grids:
            self.phase, measuring = self._mode(grids[0])
            if measuring:
                self._listen(grids, device)
            elif self.phase != DENSE:
                self._note_unverified(grids[0], device)
                self._fill(grids, device)
            elif self.trim and self._padded(module, args, kwargs, grids):
                self._fill_dense(grids, device)
        self.tracker.ran[self.tracker.index] = self.phase

    def _levels(self) -> list[float]:
        """Noise levels of the run's steps."""
        return self.tracker.levels or [self.tracker.noise_level]

    def _names(self) -> tuple[str, str]:
        """The schedule's assignments of this step and of the next one."""
        names = self.schedule.steps(self._levels())
        index = min(self.tracker.index, len(names) - 1)
        return names[index], names[index + 1] if index + 1 < len(names) else DENSE

    def _mode(self, grid: TokenGrid) -> tuple[str, bool]:
        """The assignment to run now, and whether this pass is to be measured."""
        step = self.tracker.step
        name, following = self._names()
        if step == self._measured:  # further passes of the step
            return DENSE, False
        if name == DENSE:
            measuring = self._measures(following)
        else:
            known = self._measured is not None and self._measured[0] == step[0]
            measuring = self._measures(name) and (not known or grid.shape != self._measured_shape)
        if measuring:
            self._measured, self._measured_shape = step, grid.shape
        return (DENSE, True) if measuring else (name, False)

    def _measures(self, name: str) -> bool:
        """Whether an assignment needs something measured in the run."""
        if name == DENSE:
            return False
        if self.plan is None or self.auto is not None:
            return True
        return any(self._wanted(name))

    def _wanted(self, assignment: str) -> list[list[Wanted]]:
        """What every layer of an assignment needs measured."""
        if assignment not in self._wanted_by_name:
            assert self.plan is not None
            self._wanted_by_name[assignment] = [
                wanted(self.plan, assignment, layer) for layer in range(len(self._layers))
            ]
        return self._wanted_by_name[assignment]

    def _listen(self, grids: tuple[TokenGrid, ...], device: torch.device) -> None:
        """Run everything densely through the operator, listening to every layer."""
        self._prepared.clear()
        self._maps = []
        if self.auto is not None:
            model = model_of(self.transformer)
            self._measure = AutoPlanner(self.auto, model, grids[-1], self._levels())
        else:
            assert self.plan is not None
            self._measure = CapturedMaps(self.plan)
        self._fill_dense(grids, device)
        for index, (layer, context) in enumerate(zip(self._layers, self._contexts, strict=True)):
            weight = partial(self.family.output_weight, layer)
            listener = self._measure.listener(index, weight)
            if listener is None:
                context.tables = ()
            elif context.tables:
                context.listener = torch.compiler.disable(listener)

    def _fill_dense(self, grids: tuple[TokenGrid, ...], device: torch.device) -> None:
        """Run every layer that can be densely through the operator."""
        patterns: list[list[Pattern]] = [[Full()] * layer.heads for layer in self._layers]
        tables = [self._tables.lowered(grid, DENSE, patterns, device) for grid in grids]
        for index, context in enumerate(self._contexts):
            if self._obstacle(index) is None:
                context.tables = tuple(one[index] for one in tables)

    def _padded(
        self,
        module: torch.nn.Module,
        args: tuple[Any, ...],
        kwargs: Any,
        grids: tuple[TokenGrid, ...],
    ) -> bool:
        """Whether a call carries text padding that its grids leave out."""
        whole = self.family.grid(module, args, kwargs)
        return any(grid.exact_tokens < whole.exact_tokens for grid in grids)

    def _settle(self) -> None:
        """After a measured pass: stop listening and keep what was found."""
        measure, self._measure = self._measure, None
        if measure is None:
            return
        self._prepared.clear()
        for context in self._contexts:
            context.listener = None
        if self._measured is None or self._measured[0] != self.tracker.runs:
            return  # of a run that was broken off
        if isinstance(measure, AutoPlanner):
            for index, errors in enumerate(measure.errors):
                if errors is None and self._obstacle(index) is None:
                    if self.strict:
                        self._measured = None  # what raises is measured again
                    self._fall_back("a layer was skipped in the step that chose the automatic plan")
            self.plan, self._maps = measure.decide()
            self._tables.clear()
            self._wanted_by_name.clear()
        else:
            self._maps = measure.rows

    def _fill(self, grids: tuple[TokenGrid, ...], device: torch.device) -> None:
        """Give every layer its tables for the phase, or note why it has none."""
        found = self._tables_and_rows(grids, device)
        for index, (context, (tables, rows)) in enumerate(zip(self._contexts, found, strict=True)):
            reason = self._obstacle(index)
            if reason is None and rows is None:
                reason = "a layer was skipped in the step that measured its captured patterns"
            if reason is None and rows is not None:
                context.tables, context.rows = tables, rows
            elif reason is not None:
                self._fall_back(reason)

    def _tables_and_rows(
        self, grids: tuple[TokenGrid, ...], device: torch.device
    ) -> list[tuple[tuple[BlockTable, ...], tuple[CapturedRows, ...] | None]]:
        """Every layer's tables, and the captured rows that are still to be set in them.

        Rows are None if some were not measured. All of it is kept for the run, while maps stay.
        """
        if self._prepared_run != self.tracker.runs:
            self._prepared_run = self.tracker.runs
            self._prepared.clear()
        key = self.phase, grids, device
        if key not in self._prepared:
            tables = [self._static_tables(grid, self.phase, device) for grid in grids]
            rows = [self._rows(self.phase, index) for index in range(len(self._layers))]
            known: list[tuple[CapturedRows, ...]] = []
            size = 0
            for found in rows:
                size += len(tables) * sum(one.expanded_nbytes for one in found or ())
                known.append((found or ()) if size <= EXPANDED_BYTES else ())
            if any(known):
                tables = [expanded(one, known) for one in tables]
                rows = [() if done else found for found, done in zip(rows, known, strict=True)]
            self._prepared[key] = list(zip(zip(*tables, strict=True), rows, strict=True))
            if len(self._prepared) > PREPARED:
                self._prepared.pop(next(iter(self._prepared)))
        return self._prepared[key]

    def _obstacle(self, index: int) -> str | None:
        """Why a layer has to run dense as it is set up now, or None."""
        processor = self._layers[index].processor
        if (
            isinstance(processor, SparseProcessor)
            and processor.context is not self._contexts[index]
        ):
            return "a layer's processor is of an earlier enable(); disable and enable again"
        return self.family.obstacle(self._layers[index])

    def _rows(self, assignment: str, layer: int) -> tuple[CapturedRows, ...] | None:
        """A layer's captured rows; None if one is missing."""
        found = [
            self._maps[layer].get(want) if self._maps else None
            for want in self._wanted(assignment)[layer]
        ]
        rows = tuple(one for one in found if one is not None)
        return rows if len(rows) == len(found) else None

    def _static_tables(
        self, grid: TokenGrid, assignment: str, device: torch.device | str
    ) -> list[BlockTable]:
        """The block table of every layer of an assignment, captured rows still empty."""
        assert self.plan is not None
        patterns = [self.plan.layer(assignment, i) for i in range(len(self._layers))]
        return self._tables.lowered(grid, assignment, patterns, device)

    def _note_unverified(self, grid: TokenGrid, device: torch.device) -> None:
        """Say once what a searched plan was verified on that is different here."""
        made = {} if self.plan is None else self.plan.provenance
        if "verified" not in made:
            return
        shape = str(replace(grid, before=0, after=0))
        for key, value in (("grid", shape), ("device", device_name(device))):
            there = str(made.get(key)).split(" + ")[0]  # a grid's text may have any length
            note = f"the plan was verified on {key} {there}, not on {value}"
            if key in made and there != value and note not in self.notes:
                self.notes.append(note)
                logger.warning(note)

    def _fall_back(self, reason: str) -> None:
        """Note that layers run dense; say so once, or raise under `strict`."""
        if self.strict:
            raise RuntimeError(f"strict: attention would run dense: {reason}")
        if reason not in self.fallbacks:
            self.fallbacks.append(reason)
            logger.warning("attention runs dense (stock): %s", reason)
