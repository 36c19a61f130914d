"""One enabled transformer: before each forward pass it decides what every layer runs."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from ajour.capture import expand
from ajour.patterns import Full
from ajour.pipelines.auto import Auto, dense_plan, model_of, small_grid
from ajour.pipelines.choosing import AutoPlanner
from ajour.pipelines.devices import check_devices, execution_device
from ajour.pipelines.hooks import Hook
from ajour.pipelines.layers import Layers
from ajour.pipelines.locate import StepLocator, UnknownStep
from ajour.pipelines.measuring import CapturedMaps
from ajour.pipelines.reports import Reports
from ajour.pipelines.reuse import Reuse, cache_of
from ajour.pipelines.run_state import RunState, RunStates
from ajour.pipelines.steps import Run
from ajour.pipelines.tables import TableCache, prepare
from ajour.pipelines.turn import Turn
from ajour.processors import Call, Obstacle, family_of
from ajour.processors.base import trimmed
from ajour.schedule import DENSE, REUSE
from ajour.steps import Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from ajour.capture import CapturedRows
    from ajour.grid import TokenGrid
    from ajour.pipelines.tables import Patterns, Prepared
    from ajour.plan import Plan
    from ajour.schedule import Schedule

_passes = count(1)
"""Numbers the forward passes of all enabled transformers."""


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
        plan: the plan that runs; an automatic plan is that of the run of the last forward pass.
        assignment: what the last forward pass ran, `dense` for stock attention, `reuse` if the
            transformer did not run.
        grid: of the last forward pass; None before it, and if that had to run dense.
        device: that the last forward pass ran on; None before it.
        last_pass: number of the last forward pass among those of all enabled transformers.
        run: the run of the last forward pass whose step was known.
        fallbacks: why attention ran dense although the plan says otherwise.
        notes: what differs from what the plan was verified on.
        listen: see `Layers.listen`.
        time: see `Layers.time`.
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
        self.fallbacks, self.notes = self.reports.fallbacks, self.reports.notes
        self._turn = Turn()
        self._released = False
        self.layers = Layers(
            transformer, self.family, backend, self.reports.fall_back, self._turn.is_caller
        )
        self.listen, self.time = self.layers.listen, self.layers.time
        self._locator = locator
        self._tables = TableCache()
        self._states = RunStates()
        self._state: RunState | None = None
        self._measuring: tuple[RunState, int, CapturedMaps | AutoPlanner] | None = None
        self._forced: Step | None = None
        self._reuse = Reuse(transformer) if self._may_reuse else None
        self._hooks = [
            transformer.register_forward_pre_hook(Hook(self._before), with_kwargs=True),
            transformer.register_forward_hook(
                Hook(self._after), with_kwargs=True, always_call=True
            ),
        ]

    def check_between_passes(self) -> None:
        """Raise RuntimeError if the caller is in a pass."""
        self._turn.check_outside()

    def release(self) -> None:
        """Put the stock processors back and stop following the scheduler.

        Waits for the end of a pass of another thread.
        """
        self._turn.begin()
        try:
            self._released = True
            for hook in self._hooks:
                hook.remove()
            if self._reuse is not None:
                self._reuse.release()
            self.layers.release()
            self._locator.release()
        finally:
            self._turn.end()

    @property
    def _may_reuse(self) -> bool:
        if self.auto is not None:
            return self.auto.reuse > 0 and not self.auto.dense_every
        return self.plan is not None and self.plan.schedule.reuses

    @property
    def latest_run(self) -> Run | None:
        """The run of the last forward pass, or that of the scheduler if there was none."""
        return self.run or self._locator.latest

    @property
    def schedule(self) -> Schedule:
        """The schedule of the latest run."""
        return self._schedule_of(self.latest_run)

    def _schedule_of(self, run: Run | None) -> Schedule:
        if self.auto is None:
            assert self.plan is not None
            return self.plan.schedule
        levels = run.noise_levels if run is not None else (1.0,)
        in_a_row = self._state.in_a_row if self._state is not None else None
        return self.auto.on(self.grid).schedule(levels, in_a_row or 0)

    @contextmanager
    def run_as(self, assignment: str, measure: bool = False) -> Iterator[None]:
        """Within the block, every pass runs an assignment, whatever schedule and scheduler say.

        Args:
            assignment: name of an assignment of the plan, or `dense`.
            measure: with `dense`, measure captured patterns in each pass. They are kept for later
                blocks.

        Raises:
            ValueError: if the plan has no such assignment, or is automatic: that is chosen and
                measured for one run.
        """
        if self.auto is not None and (measure or assignment != DENSE):
            raise ValueError("run_as cannot run an automatic plan; enable with a plan")
        names = [DENSE, *(self.plan.assignments if self.plan is not None else ())]
        if assignment not in names:
            raise ValueError(f"no assignment {assignment!r}; there are {', '.join(names)}")
        before, self._forced = self._forced, Step(assignment, measure)
        try:
            yield
        finally:
            self._forced = before

    def output_weight(self, layer: int, out: torch.Tensor) -> torch.Tensor | None:
        """Weight of a layer's output projection, see `Family.output_weight`."""
        return self.family.output_weight(self.layers.modules[layer], out)

    def densities(self, assignment: str) -> list[float | None]:
        """Density of every layer on the last grid, 1 if it runs dense; None if not known yet."""
        if self.plan is None or self.grid is None:
            return [None] * len(self.layers)
        densities: list[float | None] = []
        patterns = self._patterns(self.plan, assignment)
        for index, table in enumerate(self._tables.lowered(self.grid, patterns, "cpu")):
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
        return {
            head: levels
            for row in self._rows(assignment, layer) or ()
            for head, levels in zip(row.heads.tolist(), row.levels.unpack().cpu(), strict=True)
        }

    def _before(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: Any) -> None:
        """Pre-hook of the transformer: give every layer what it runs."""
        self._turn.begin()
        if self._released:  # while this pass waited for its turn: it runs stock
            self._turn.end()
            return
        try:
            self._clear(in_pass=True)
            self._prepare(Call(module, args, kwargs))
        except BaseException:
            self._end()
            raise

    def _after(self, module: Any, args: Any, kwargs: Any, output: Any) -> None:
        """Hook of the transformer, also called if the pass failed, without an output then."""
        if not self._turn.mine:
            return  # another hook failed before `_before` was called
        try:
            if output is not None:
                self._settle(output)
        finally:
            self._end()

    def _end(self) -> None:
        self._clear()
        self._turn.end()

    def _clear(self, in_pass: bool = False) -> None:
        """Forget what was prepared for a pass."""
        self._measuring = None
        if self._reuse is not None:
            self._reuse.end()
        self.layers.clear(in_pass)

    def _prepare(self, call: Call) -> None:
        self.last_pass = next(_passes)
        self.assignment, self.grid, self._state = DENSE, None, None
        self.device = execution_device(call.transformer, call.device)
        run, index = self._locate(call)
        obstacle: str | None = None
        grids: tuple[TokenGrid, ...] = ()
        try:
            check_devices(call.transformer)
            whole = self.family.grid(call)
            padding, end = self.family.padding(call), self.family.padding_end(call, whole)
            grids = trimmed(whole, padding, end)
            self.grid = grids[0]
        except Obstacle as reason:
            obstacle = str(reason)
        if run is None or index is None:
            return
        begin = partial(self._first_plan, run)
        self._state = state = self._states.of(run, self.grid, index, begin)
        self.plan = state.plan or self.plan
        if self._reuse is not None and self._forced is None:
            self._decide_reuse(state, run, index)
            self._reuse.begin(
                state.outputs, (state.next_pass(index), call.shapes), run.noise_levels[index]
            )
        step = self._forced or state.step(
            index, self._schedule_of(run), run.noise_levels, self._is_captured, self._can_reuse
        )
        if self._reuse is not None and step.assignment == REUSE:
            self.assignment = REUSE
            self._reuse.answer(step.slopes)
            run.note(index, REUSE)
            return
        if obstacle is not None and step != Step(DENSE):
            self.reports.fall_back(obstacle)
        if grids:
            alone = self.family.keys_alone(call, whole)
            self.layers.begin(whole.seq_len, end, masks_padding=bool(padding), keys_alone=alone)
            if step.measures:
                self._measure(index, state, run, grids)
            elif step.assignment != DENSE:
                self.assignment = step.assignment
                self.reports.note_unverified(self.plan, grids[0], self.device)
                self.layers.give_sparse(self._prepared(state, step.assignment, grids))
            elif self.trim and set(grids) != {whole}:
                self.layers.give_dense(self._prepared(state, DENSE, grids))
        if isinstance(run, Run):
            run.note(index, self.assignment)

    def _first_plan(self, run: Any) -> Plan | None:
        """The plan that a run begins with; None where it is chosen on the way."""
        if self.auto is None:
            return self.plan
        if not isinstance(run, Run):
            return None
        if self.grid is not None and (small := small_grid(self.grid)) is not None:
            self.reports.note(small)
        return dense_plan(self.auto, self.transformer, self.grid, run.noise_levels)

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

    def _is_captured(self, assignment: str) -> bool:
        return self.auto is not None or (
            self.plan is not None and self.plan.is_captured(assignment)
        )

    def _decide_reuse(self, state: RunState, run: Any, index: int) -> None:
        """Where an automatic plan may begin to reuse steps: decide how many in a row."""
        if self.auto is None or state.in_a_row is not None:
            return
        if index != self.auto.reuse_begins(run.noise_levels):
            return
        cache, in_a_row = cache_of(self.transformer), 0
        if cache is None:
            in_a_row = self.auto.in_a_row(state.outputs.missed())
        else:
            self.reports.note(f"a cache of diffusers is on ({cache}), so no step is reused")
        here = self.auto.on(self.grid)
        state.decide_reuse(in_a_row, here.schedule(run.noise_levels, in_a_row))
        self.plan = state.plan or self.plan

    def _can_reuse(self) -> bool:
        """Whether the pass under way can be answered by what was computed before."""
        cache = cache_of(self.transformer)
        if cache is not None:
            self.reports.fall_back(
                f"a cache of diffusers is on ({cache}), so steps are computed that the plan "
                "reuses; call disable_cache() of the transformer, or enable with reuse=False"
            )
        return cache is None and self._reuse is not None and self._reuse.can_answer

    def _prepared(self, state: RunState, name: str, grids: tuple[TokenGrid, ...]) -> Prepared:
        """What every layer is given for an assignment, or for dense attention by the operator."""
        device = self.device
        assert device is not None

        def make() -> Prepared:
            patterns = self._patterns(state.plan, name)
            tables = [self._tables.lowered(grid, patterns, device) for grid in grids]
            return prepare(tables, [state.rows(name, layer) for layer in range(len(self.layers))])

        return state.prepared(name, grids, device, make)

    def _patterns(self, plan: Plan | None, name: str) -> Patterns:
        layers = range(len(self.layers))
        if plan is None or name == DENSE:
            return tuple((Full(),) * self.family.heads(self.transformer) for _ in layers)
        return tuple(tuple(plan.layer(name, layer)) for layer in layers)

    def _measure(self, index: int, state: RunState, run: Any, grids: tuple[TokenGrid, ...]) -> None:
        """Run densely through the operator, and measure in every layer that has captured heads."""
        measuring: CapturedMaps | AutoPlanner
        if self.auto is not None:
            model, levels = model_of(self.transformer), run.noise_levels
            measuring = AutoPlanner(self.auto, model, grids[-1], levels, self.backend)
        else:
            assert self.plan is not None
            measuring = CapturedMaps(self.plan, self.backend)
        self._measuring = state, index, measuring
        self.layers.give_dense(self._prepared(state, DENSE, grids))
        for layer in range(len(self.layers)):
            listener = measuring.listener(layer, partial(self.output_weight, layer))
            if listener is None:
                self.layers.give(layer, ())
            else:
                self.layers.hear(layer, listener)

    def _settle(self, output: Any) -> None:
        """After a pass: keep its output, its maps, and the plan if it was chosen."""
        if self._reuse is not None:
            self._reuse.record(output)
        if self._measuring is None:
            return
        state, index, measuring = self._measuring
        for layer in measuring.skipped:
            if self.layers.obstacle(layer) is None:
                self.reports.fall_back(
                    "a layer was skipped in the step that chose the automatic plan"
                )
        self.plan, maps = measuring.decide()
        state.settle(index, self.plan, maps)

    def _rows(self, assignment: str, layer: int) -> tuple[CapturedRows, ...] | None:
        """A layer's captured rows in the last pass; None if some are missing."""
        return (self._state or RunState(0, self.plan)).rows(assignment, layer)
