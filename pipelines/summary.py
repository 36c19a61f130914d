"""`summary`: what an enabled pipeline will run, as a dataclass that prints as a table."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ajour.dispatch import choose
from ajour.pipelines.session import session_of
from ajour.schedule import DENSE, REUSE

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    """

    layers: tuple[LayerSummary, ...]
    schedule: tuple[tuple[float, str], ...]
    grid: str | None
    backend: str
    fallbacks: tuple[str, ...]
    notes: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()

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

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"ajour: grid {self.grid or 'unknown yet'}, backend {self.backend}")
        for title in ("transformer", "assignment", "layer", "density", "patterns"):
            table.add_column(title)
        for row in self.layers:
            density = "?" if row.density is None else f"{row.density:.3f}"
            kinds = ", ".join(f"{count} {name}" for name, count in row.kinds.items())
            cells = (str(row.transformer), row.assignment, str(row.layer), density, kinds)
            table.add_row(*cells)
        console = Console(file=io.StringIO(), width=100)
        console.print(table)
        for below, use in self.schedule:
            console.print(f"noise level <= {below:g}: {use}")
        if self.steps:
            counts = Counter(use if use in (DENSE, REUSE) else "sparse" for use in self.steps)
            each = ", ".join(f"{count} {kind}" for kind, count in counts.items())
            console.print(f"steps of the latest run: {each}")
        for reason in self.fallbacks:
            console.print(f"ran dense: {reason}")
        for note in self.notes:
            console.print(f"note: {note}")
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
    )
