"""One enabled transformer: before each forward pass it decides what every layer runs."""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import torch

from ajour.capture import expand
from ajour.patterns import Full
from ajour.pipelines.auto import Auto, AutoPlanner, model_of
from ajour.pipelines.devices import check_devices, execution_device
from ajour.pipelines.layers import Layers
from ajour.pipelines.locate import StepLocator, UnknownStep
from ajour.pipelines.machine import device_name
from ajour.pipelines.measuring import CapturedMaps, captured_rows
from ajour.pipelines.reports import Reports
from ajour.pipelines.steps import Run
from ajour.pipelines.tables import TableCache, prepare
from ajour.pipelines.turn import Turn
from ajour.processors import Call, Obstacle, family_of
from ajour.schedule import DENSE
from ajour.steps import Step, run_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ajour.capture import CapturedRows
    from ajour.grid import TokenGrid
    from ajour.pipelines.measuring import Maps
    from ajour.pipelines.tables import Prepared
    from ajour.plan import Plan
    from ajour.schedule import Schedule

_passes = count(1)
"""Numbers the forward passes of all enabled transformers."""

GRIDS = 8
"""A transformer remembers so many grids of a run, and of each so many assignments and text lengths.
"""


@dataclass
class RunState:
    """What a transformer knows in one run on one grid; maps are never carried to another run.

    Args:
        first: index of the first step on this grid.
        plan: the plan; None until an automatic one is chosen.
        maps: level maps of captured patterns by layer; None until they are measured.
        measured: index of the step that measured them last.
        prepared: what every layer is given, by assignment, grids and device.
    """

    first: int
    plan: Plan | None
    maps: Maps | None = None
    measured: int | None = None
    prepared: dict[tuple[str, tuple[TokenGrid, ...], torch.device], Prepared] = field(
        default_factory=dict
    )


class TransformerRuntime:
    """Runs one transformer under a plan.

    Args:
        transformer: a supported diffusers transformer.
        plan: the plan, already checked against the transformer, or how to choose one in each run.
        locator: says which step a pass belongs to.
        backend: the operator's backend, or None to choose.
        strict: raise instead of running dense where the plan cannot be followed.
        trim: leave text padding out of dense steps too, instead of masking it.

    Attributes:
        plan: the plan that runs, for automatic plans the one that was chosen last.
        assignment: what the last forward pass ran, `dense` for stock attention.
        grid: of the last forward pass; None before it, and if that had to run dense.
        device: that the last forward pass ran on; None before it.
        last_pass: number of the last forward pass among those of all enabled transformers.
        run: the run of the last forward pass whose step was known.
    """

    def __init__(
        self,
        transformer: torch.nn.Module,
        plan: Plan | Auto,
        locator: StepLocator,
        backend: str | None = None,
        strict: bool = False,
        trim: bool = False,
    ) -> None:
        self.transformer = transformer
        self.family = family_of(transformer)
        self.auto = plan if isinstance(plan, Auto) else None
        self.plan: Plan | None = None if isinstance(plan, Auto) else plan
        self.backend = backend
        self.trim = trim
        self.assignment = DENSE
        self.grid: TokenGrid | None = None
        self.device: torch.device | None = None
        self.last_pass = 0
        self.run: Run | None = None
        self.reports = Reports(strict)
        self.layers = Layers(transformer, self.family, backend, self.reports.fall_back)
        self._locator = locator
        self._tables = TableCache()
        self._turn = Turn()
        self._states: weakref.WeakKeyDictionary[Any, dict[Any, RunState]] = (
            weakref.WeakKeyDictionary()
        )
        self._state: RunState | None = None
        self._measuring: tuple[RunState, int, CapturedMaps | AutoPlanner] | None = None
        self._forced: Step | None = None
        self._hooks = [
            transformer.register_forward_pre_hook(Hook(self._before), with_kwargs=True),
            transformer.register_forward_hook(
                Hook(self._after), with_kwargs=True, always_call=True
            ),
        ]

    def release(self) -> None:
        """Put the stock processors back and stop following the scheduler."""
        for hook in self._hooks:
            hook.remove()
        self.layers.release()
        self._locator.release()

    @property
    def fallbacks(self) -> list[str]:
        """Why attention ran dense although the plan says otherwise."""
        return self.reports.fallbacks

    @property
    def notes(self) -> list[str]:
        """What differs from what the plan was verified on."""
        return self.reports.notes

    @property
    def latest_run(self) -> Run | None:
        """The run of the last forward pass, or that of the scheduler if there was none."""
        return self.run or self._locator.latest

    @property
    def schedule(self) -> Schedule:
        """The schedule of the latest run."""
        if self.auto is None:
            assert self.plan is not None
            return self.plan.schedule
        run = self.latest_run
        return self.auto.schedule(run.noise_levels if run is not None else (1.0,))

    @contextmanager
    def listen(self, listener: Callable[..., None]) -> Iterator[None]:
        """Within the block, hear every layer's attention that goes through the operator.

        Args:
            listener: called with the layer's index, q and k as attention sees them, v and the
                output, all (batch, tokens, heads, head_dim), and the token grid.
        """
        end = self.layers.listen(listener)
        try:
            yield
        finally:
            end()

    @contextmanager
    def time(self, timers: Sequence[Callable[[], None]]) -> Iterator[None]:
        """Within the block, call each layer's timer right before and after its attention.

        Args:
            timers: one per layer; stock attention does not call them.
        """
        self.layers.time(timers)
        try:
            yield
        finally:
            self.layers.time([None] * len(self.layers))

    @contextmanager
    def run_as(self, assignment: str, measure: bool = False) -> Iterator[None]:
        """Within the block, every pass runs an assignment, whatever schedule and scheduler say.

        Args:
            assignment: name of an assignment of the plan, or `dense`.
            measure: with `dense`, measure captured patterns in each pass. They are kept for later
                blocks.

        Raises:
            ValueError: if the plan has no such assignment.
        """
        names = [DENSE, *(self.plan.assignments if self.plan is not None else ())]
        if assignment not in names:
            raise ValueError(f"no assignment {assignment!r}; there are {', '.join(names)}")
        before, self._forced = self._forced, Step(assignment, measure)
        try:
            yield
        finally:
            self._forced = before

    def output_weight(self, layer: int) -> torch.Tensor | None:
        """Weight of a layer's output projection, see `Family.output_weight`."""
        return self.family.output_weight(self.layers.modules[layer])

    def densities(self, assignment: str) -> list[float | None]:
        """Density of every layer on the last grid, 1 if it runs dense; None if not known yet."""
        if self.plan is None or self.grid is None:
            return [None] * len(self.layers)
        densities: list[float | None] = []
        for index, table in enumerate(self._lowered(self.plan, self.grid, assignment, "cpu")):
            rows = self._rows(assignment, index)
            measured = self._state is not None and self._state.maps is not None
            if self.layers.obstacle(index) is not None or (rows is None and measured):
                densities.append(1.0)
                continue
            if rows:
                table = expand([table], [[row.to("cpu") for row in rows]])[0]
            densities.append(None if rows is None else table.density())
        return densities

    def captured(self, assignment: str, layer: int) -> dict[int, torch.Tensor]:
        """The level maps measured in the last run, by captured head of a layer: int8 (Nv, Nv)."""
        rows = self._rows(assignment, layer) if self.plan is not None else None
        return {
            head: levels
            for row in rows or ()
            for head, levels in zip(row.heads.tolist(), row.levels.unpack().cpu(), strict=True)
        }

    def _before(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: Any) -> None:
        """Pre-hook of the transformer: give every layer what it runs."""
        self._turn.begin()
        try:
            self._measuring = None
            self.layers.clear(in_pass=True)
            self._prepare(Call(module, args, kwargs))
        except BaseException:
            self._end()
            raise

    def _after(self, module: Any, args: Any, kwargs: Any, output: Any) -> None:
        """Hook of the transformer, also called if the pass failed, without an output then."""
        try:
            if output is not None:
                self._settle()
        finally:
            self._end()

    def _end(self) -> None:
        self._measuring = None
        self.layers.clear()
        self._turn.end()

    def _prepare(self, call: Call) -> None:
        self.last_pass = next(_passes)
        self.assignment, self.grid, self._state = DENSE, None, None
        self.device = execution_device(call.transformer, call.device)
        run, index = self._locate(call)
        obstacle: str | None = None
        whole: TokenGrid | None = None
        grids: tuple[TokenGrid, ...] = ()
        try:
            check_devices(call.transformer)
            whole = self.family.grid(call)
            grids = self.family.grids(call, whole)
            self.grid = grids[0]
        except Obstacle as reason:
            obstacle = str(reason)
        if run is None or index is None:
            return
        self._state = state = self._state_of(run, index)
        step = self._step(run, index, state)
        if obstacle is not None and step != Step(DENSE):
            self.reports.fall_back(obstacle)
        if whole is not None:
            end = self.family.padding_end(call, whole)
            self.layers.begin(whole.seq_len, end, bool(self.family.padding(call)))
            self._fill(step, index, state, run, grids, whole)
        if isinstance(run, Run):
            run.note(index, self.assignment)

    def _state_of(self, run: Any, index: int) -> RunState:
        """What is known in a run on the grid of this pass."""
        states = self._states.setdefault(run, {})
        shape = None if self.grid is None else self.grid.shape
        if shape not in states:
            states[shape] = RunState(index, None if self.auto is not None else self.plan)
            if len(states) > GRIDS:
                del states[next(iter(states))]
        return states[shape]

    def _locate(self, call: Call) -> tuple[Any, int | None]:
        """The run and the step of a pass; None if they are not known."""
        if self._forced is not None:
            return self, 0
        try:
            self.run, index = self._locator.locate(call.transformer, call[self.family.timestep])
            return self.run, index
        except UnknownStep as reason:
            if self.auto is not None or any(p.assignment != DENSE for p in self.schedule.phases):
                self.reports.fall_back(str(reason))
            return None, None

    def _step(self, run: Any, index: int, state: RunState) -> Step:
        """What the pass does."""
        if self._forced is not None:
            return self._forced
        levels = run.noise_levels
        schedule = self.schedule if self.auto is None else self.auto.schedule(levels)
        captured = self._is_captured
        step = run_steps(schedule, levels, captured, state.first)[index]
        if step.assignment != DENSE and captured(step.assignment) and state.maps is None:
            state.first = index  # the step that should have measured did not run
            step = Step(DENSE, True)
        return Step(DENSE) if step.measures and state.measured == index else step

    def _is_captured(self, assignment: str) -> bool:
        return self.auto is not None or (
            self.plan is not None and self.plan.is_captured(assignment)
        )

    def _fill(
        self,
        step: Step,
        index: int,
        state: RunState,
        run: Any,
        grids: tuple[TokenGrid, ...],
        whole: TokenGrid,
    ) -> None:
        """Give every layer its tables for this pass."""
        assert self.device is not None
        if step.measures:
            self._measure(index, state, run, grids)
        elif step.assignment != DENSE:
            self.assignment = step.assignment
            self._note_unverified(grids[0])
            self._fill_sparse(state, grids)
        elif self.trim and any(grid != whole for grid in grids):
            self._fill_dense(grids)

    def _fill_sparse(self, state: RunState, grids: tuple[TokenGrid, ...]) -> None:
        assert state.plan is not None
        assert self.device is not None
        key = self.assignment, grids, self.device
        if key not in state.prepared:
            tables = [self._lowered(state.plan, g, self.assignment, self.device) for g in grids]
            rows = [self._rows(self.assignment, index) for index in range(len(self.layers))]
            state.prepared[key] = prepare(tables, rows)
            if len(state.prepared) > GRIDS:
                state.prepared.pop(next(iter(state.prepared)))
        for index, (given, left) in enumerate(state.prepared[key]):
            reason = self.layers.obstacle(index)
            if reason is None and left is None:
                reason = "a layer was skipped in the step that measured its captured patterns"
            if reason is None and left is not None:
                self.layers.give(index, given, left)
            elif reason is not None:
                self.reports.fall_back(reason)

    def _fill_dense(self, grids: tuple[TokenGrid, ...]) -> None:
        """Every layer that can runs densely through the operator."""
        assert self.device is not None
        heads = (Full(),) * self.family.heads(self.transformer)
        patterns = (heads,) * len(self.layers)
        tables = [self._tables.lowered(grid, patterns, self.device) for grid in grids]
        for index in range(len(self.layers)):
            if self.layers.obstacle(index) is None:
                self.layers.give(index, tuple(table[index] for table in tables))

    def _measure(self, index: int, state: RunState, run: Any, grids: tuple[TokenGrid, ...]) -> None:
        """Run densely through the operator, and measure in every layer that has captured heads."""
        measuring: CapturedMaps | AutoPlanner
        if self.auto is not None:
            model = model_of(self.transformer)
            measuring = AutoPlanner(self.auto, model, grids[-1], run.noise_levels)
        else:
            assert self.plan is not None
            measuring = CapturedMaps(self.plan)
        self._measuring = state, index, measuring
        self._fill_dense(grids)
        for layer in range(len(self.layers)):
            listener = measuring.listener(layer, partial(self.output_weight, layer))
            if listener is None:
                self.layers.give(layer, ())
            else:
                self.layers.hear(layer, listener)

    def _settle(self) -> None:
        """After a measured pass: keep the maps, and the plan if it was chosen."""
        if self._measuring is None:
            return
        state, index, measuring = self._measuring
        for layer in measuring.skipped:
            if self.layers.obstacle(layer) is None:
                self.reports.fall_back(
                    "a layer was skipped in the step that chose the automatic plan"
                )
        state.plan, state.maps = measuring.decide()
        state.measured = index
        state.prepared.clear()
        self.plan = state.plan

    def _rows(self, assignment: str, layer: int) -> tuple[CapturedRows, ...] | None:
        """A layer's captured rows; None if some are missing."""
        state = self._state
        plan = state.plan if state is not None and state.plan is not None else self.plan
        assert plan is not None
        return captured_rows(plan, state.maps if state is not None else None, assignment, layer)

    def _lowered(
        self, plan: Plan, grid: TokenGrid, assignment: str, device: torch.device | str
    ) -> Any:
        patterns = tuple(tuple(plan.layer(assignment, i)) for i in range(len(self.layers)))
        return self._tables.lowered(grid, patterns, device)

    def _note_unverified(self, grid: TokenGrid) -> None:
        """Say once what a searched plan was verified on that is different here."""
        assert self.device is not None
        made = {} if self.plan is None else self.plan.provenance
        if "verified" not in made:
            return
        shape = str(replace(grid, before=0, after=0))
        for key, value in (("grid", shape), ("device", device_name(self.device))):
            there = str(made.get(key)).split(" + ")[0]  # a grid may have any exact tokens
            if key in made and there != value:
                self.reports.note(f"the plan was verified on {key} {there}, not on {value}")


class Hook:
    """A hook that a copy of the transformer does not have: it becomes one that does nothing.

    Args:
        call: what the hook does; torch.compile leaves it alone.
    """

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = torch.compiler.disable(call)

    def __call__(self, *args: Any) -> None:
        """Do it."""
        self._call(*args)

    def __deepcopy__(self, memo: Any) -> Any:
        return nothing

    def __reduce__(self) -> tuple[Any, ...]:
        return _nothing, ()


def nothing(*args: Any) -> None:
    """The hook of a copied or unpickled transformer, which runs stock."""


def _nothing() -> Callable[..., None]:
    return nothing
