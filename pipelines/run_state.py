"""What one transformer knows in one denoising run: its plan, and what was measured so far."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ajour.pipelines.measuring import wanted
from ajour.pipelines.reuse import PastOutputs
from ajour.pipelines.steps import Run
from ajour.schedule import DENSE, REUSE
from ajour.steps import Step, run_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from ajour.capture import CapturedRows
    from ajour.grid import TokenGrid
    from ajour.pipelines.measuring import Maps
    from ajour.pipelines.tables import Prepared
    from ajour.plan import Plan
    from ajour.schedule import Schedule

GRIDS = 8
"""A transformer remembers so many grids of a run, and of each so many assignments and text lengths.
"""


@dataclass
class RunState:
    """What is known in one run on one grid; maps are never carried to another run.

    Args:
        first: index of the first step on this grid.
        plan: the plan; None until an automatic plan is chosen.
        maps: level maps of captured patterns by layer; None until they are measured.
        measured: index of the step that measured them last.
        outputs: of the last computed steps.
        in_a_row: steps that an automatic plan reuses after a computed step; None until decided.
    """

    first: int
    plan: Plan | None
    maps: Maps | None = None
    measured: int | None = None
    outputs: PastOutputs = field(default_factory=PastOutputs)
    in_a_row: int | None = None
    _passes: tuple[int, int] = -1, 0
    _steps: tuple[Step, ...] = ()
    _prepared: dict[tuple[str, tuple[TokenGrid, ...], torch.device], Prepared] = field(
        default_factory=dict
    )

    def step(
        self,
        index: int,
        schedule: Schedule,
        noise_levels: Sequence[float],
        captured: Callable[[str], bool],
        can_reuse: Callable[[], bool] = lambda: False,
    ) -> Step:
        """What a pass of a step does; of a measuring step only the first pass measures.

        Args:
            index: of the step.
            schedule: the schedule of the run.
            noise_levels: of all its steps.
            captured: whether an assignment has captured patterns.
            can_reuse: whether the pass can be answered by what was computed before; only asked if
                the schedule says so.
        """
        if not self._steps:
            self._steps = run_steps(schedule, noise_levels, captured, self.first)
        step = self._steps[index]
        if step.assignment == REUSE:
            if can_reuse():
                return step
            step = Step(schedule.at(noise_levels[index]))
        if step.assignment != DENSE and self.maps is None and captured(step.assignment):
            self.first, self._steps = index, ()  # the step that should have measured did not run
            step = Step(DENSE, True)
        return Step(DENSE) if step.measures and self.measured == index else step

    def decide_reuse(self, in_a_row: int, schedule: Schedule) -> None:
        """From now on reuse steps, by a schedule for so many in a row."""
        self.in_a_row, self._steps = in_a_row, ()
        if self.plan is not None:
            self.plan = replace(self.plan, schedule=schedule)

    def next_pass(self, step: int) -> int:
        """Number of the next pass among those of its step: the branch of guidance."""
        begun, number = self._passes
        self._passes = step, number + 1 if begun == step else 0
        return self._passes[1]

    def settle(self, index: int, plan: Plan, maps: Maps) -> None:
        """Keep what a step measured."""
        self.plan, self.maps, self.measured = plan, maps, index
        self._prepared.clear()

    def rows(self, assignment: str, layer: int) -> tuple[CapturedRows, ...] | None:
        """The measured rows of a layer's captured heads; None if some are missing."""
        if assignment == DENSE:
            return ()
        if self.plan is None:
            return None
        measured = self.maps[layer] if self.maps else {}
        wants = wanted(self.plan, assignment, layer)
        rows = tuple(measured[want] for want in wants if want in measured)
        return rows if len(rows) == len(wants) else None

    def prepared(
        self,
        assignment: str,
        grids: tuple[TokenGrid, ...],
        device: torch.device,
        make: Callable[[], Prepared],
    ) -> Prepared:
        """What every layer is given for an assignment, made once."""
        key = assignment, grids, device
        if key not in self._prepared:
            self._prepared[key] = make()
            if len(self._prepared) > GRIDS:
                del self._prepared[next(iter(self._prepared))]
        return self._prepared[key]


class RunStates:
    """The states of one transformer by run and grid, for as long as the runs live."""

    def __init__(self) -> None:
        self._states: weakref.WeakKeyDictionary[Any, dict[Any, RunState]] = (
            weakref.WeakKeyDictionary()
        )

    def of(
        self, run: Any, grid: TokenGrid | None, step: int, plan: Callable[[], Plan | None]
    ) -> RunState:
        """The state of a run on a grid, begun at a step and with a plan if it is new."""
        if run not in self._states:
            for other in list(self._states):
                if isinstance(other, Run) and other.step is None:
                    del self._states[other]  # done, though something still holds it
        states = self._states.setdefault(run, {})
        shape = None if grid is None else grid.shape
        if shape not in states:
            states[shape] = RunState(step, plan())
            if len(states) > GRIDS:
                del states[next(iter(states))]
        return states[shape]
