"""`summary`: what an enabled pipeline will run, as a dataclass that prints as a table."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ajour.dispatch import choose
from ajour.pipelines.session import session_of
from ajour.plan_text import schedule_text, step_counts, verified_text
from ajour.schedule import DENSE, REUSE

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_ROWS = 12
"""Most rows of the printed table, if there are not more assignments."""

WIDTH = 80
"""Columns of the printed text."""


@dataclass(frozen=True)
class LayerSummary:
    """One layer of one assignment of the transformer with an index in the pipeline.

    Args:
        density: kept share of dense attention's tiles, or None before the first forward pass and
            for an assignment that the schedule does not use.
        kinds: heads per kind of pattern.
    """

    transformer: int
    assignment: str
    layer: int
    density: float | None
    kinds: dict[str, int]


@dataclass(frozen=True)
class LayerGroup:
    """Neighbouring layers of an assignment: their mean density, and their heads by kind."""

    transformer: int
    assignment: str
    layers: str
    density: float | None
    kinds: str

    @classmethod
    def of(cls, transformer: int, assignment: str, rows: Sequence[LayerSummary]) -> LayerGroup:
        """The group of some layers; its density is None if that of a layer is not known."""
        kinds: Counter[str] = Counter()
        for row in rows:
            kinds.update(row.kinds)
        known = [row.density for row in rows if row.density is not None]
        first, last = rows[0].layer, rows[-1].layer
        return cls(
            transformer,
            assignment,
            str(first) if first == last else f"{first}-{last}",
            sum(known) / len(known) if len(known) == len(rows) else None,
            ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()),
        )


@dataclass(frozen=True)
class Summary:
    """What runs where.

    Args:
        layers: every layer of every assignment.
        schedule: (noise level from which it holds, assignment), noisiest first.
        grid: the grid of the last forward pass, if any.
        backend: the operator's backend on the device of the last forward pass.
        fallbacks: reasons for which layers ran dense.
        notes: what a searched plan was not verified on.
        steps: what ran in every step of the latest run, see `Session.steps`.
        verified: what a search verified of the plan, in words; empty if it was not searched.
    """

    layers: tuple[LayerSummary, ...]
    schedule: tuple[tuple[float, str], ...]
    grid: str | None
    backend: str
    fallbacks: tuple[str, ...]
    notes: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    verified: str = ""

    def density(self, assignment: str) -> float | None:
        """Mean density of an assignment over its layers; None before a pass.

        It is 1 for dense and 0 for reused steps.

        A transformer that knows none of its layers' has not run the assignment and does not count.
        """
        if assignment in (DENSE, REUSE):
            return 1.0 if assignment == DENSE else 0.0
        each: dict[int, list[float | None]] = {}
        for row in self.layers:
            if row.assignment == assignment:
                each.setdefault(row.transformer, []).append(row.density)
        values = [d for known in each.values() if known.count(None) < len(known) for d in known]
        known = [d for d in values if d is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None

    def mean_density(self, phases: Sequence[str]) -> float:
        """Mean density over steps, by the assignments that ran in them; unknown ones count as 1."""
        known = [self.density(use) for use in phases]
        return sum(1.0 if d is None else d for d in known) / len(known) if known else 1.0

    @property
    def outline(self) -> str:
        """What the latest run did; before a run, what the next run will do."""
        if not self.steps:
            return f"no run yet; the next run uses: {schedule_text(self.schedule)}"
        mean = self.mean_density(self.steps)
        text = f"latest run, {step_counts(self.steps)}; mean density {mean:.2f}"
        if all(use == DENSE for use in self.steps):
            text += ". Nothing ran sparse"
        return text

    def groups(self) -> list[LayerGroup]:
        """The layers of every assignment in a few groups, so that all of them fit a screen."""
        each: dict[tuple[int, str], list[LayerSummary]] = {}
        for row in self.layers:
            each.setdefault((row.transformer, row.assignment), []).append(row)
        most = max(1, MOST_ROWS // max(1, len(each)))
        groups = []
        for (transformer, assignment), rows in each.items():
            size = -(-len(rows) // most)
            for start in range(0, len(rows), size):
                groups.append(LayerGroup.of(transformer, assignment, rows[start : start + size]))
        return groups

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        console = Console(file=io.StringIO(), width=WIDTH, highlight=False)
        console.print(f"ajour: {self.outline}")
        console.print(f"grid {self.grid or 'unknown yet'}, backend {self.backend}")
        if self.steps:
            console.print(f"schedule: {schedule_text(self.schedule)}")
        if self.verified:
            console.print(f"verified in the plan's search: {self.verified}")
        for reason in self.fallbacks:
            console.print(f"ran dense: {reason}")
        for note in self.notes:
            console.print(f"note: {note}")
        groups = self.groups()
        several = len({group.transformer for group in groups}) > 1
        table = Table()
        titles = ("assignment", "layers", "density", "heads by kind of pattern")
        for title in (*(("transformer",) if several else ()), *titles):
            table.add_column(title)
        for group in groups:
            density = "?" if group.density is None else f"{group.density:.2f}"
            cells = (group.assignment, group.layers, density, group.kinds)
            table.add_row(*((str(group.transformer),) if several else ()), *cells)
        if groups:
            console.print(table)
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        return text


def summary(pipe: Any) -> Summary:
    """What an enabled pipeline runs: densities are those of the last forward pass's grid.

    Raises:
        RuntimeError: if not enabled.
    """
    session = session_of(pipe)
    rows = []
    for number, runtime in enumerate(session.runtimes):
        plan = runtime.plan
        if plan is None:
            continue
        used = {*plan.schedule.assignments, runtime.assignment}
        for name in plan.assignments:
            known = name in used
            densities = runtime.densities(name) if known else [None] * len(runtime.layers)
            for layer, density in enumerate(densities):
                kinds = Counter(p.kind for p in plan.layer(name, layer))
                rows.append(LayerSummary(number, name, layer, density, dict(kinds)))
    latest = session.latest
    transformer: Any = latest.transformer
    device = latest.device or transformer.device
    head_dim = latest.family.head_dim(transformer)
    backend = latest.backend or choose(device, transformer.dtype, head_dim)
    return Summary(
        layers=tuple(rows),
        schedule=tuple(
            (phase.from_noise_level, phase.assignment) for phase in latest.schedule.phases
        ),
        grid=None if latest.grid is None else str(latest.grid),
        backend=backend,
        fallbacks=tuple(reason for runtime in session.runtimes for reason in runtime.fallbacks),
        notes=tuple(note for runtime in session.runtimes for note in runtime.notes),
        steps=session.steps,
        verified=next((verified_text(r.plan) for r in session.runtimes if r.plan), ""),
    )
