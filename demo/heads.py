"""The Plan tab as HTML: the layer x head map, the schedule, and one head in detail."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup  # noqa: TC002 - gradio reads annotations at run time

from ajour.demo.attended import SHOWN, frames_of, over_frames, small, standing_out
from ajour.demo.render import note, render
from ajour.grid import BLOCK, TokenGrid
from ajour.lowering import density
from ajour.patterns import GeometricPattern
from ajour.pipelines.drawing import (
    LEVEL_NAMES,
    head_densities,
    head_map,
    in_words,
    key_pixels,
    level_pixels,
    pattern_view,
    spans,
)
from ajour.pipelines.pages import image_url

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ajour.demo.store import Maps, Result
    from ajour.plan import Plan

MOST_CELLS = 8192
"""Of a map: layers x heads."""

MOST_TOKENS, MOST_SIDE = 2**17, 1024
"""Of a grid that patterns are drawn on: its tokens, and its height and width."""

MOST_LOWERED = 2**21
"""Tokens of the grid x patterns that are lowered for a map, which takes about ten seconds."""

MOST_PHASES = 64
"""Of a schedule that is drawn."""

DEFAULT_GRID = TokenGrid(5, 8, 8)
"""For a plan whose grid is not known."""

COLOURS = ("kind", "density", "error")


@dataclass(frozen=True)
class ShownPlan:
    """The plan in a user's Plan tab.

    Attributes:
        plan: the plan.
        source: where it came from, in words.
        grid: the grid to draw patterns on.
        grid_note: why it is not the grid that the plan names; empty if it is.
        frames: of the last run's video, at the frames of the grid that are shown, (n,H,W,3); None
            if no run has this grid.
        errors: by assignment, (layers, heads): measured squared error of each head's output, over
            the squared norm of its layer's.
        measured: how the errors were measured, in words.
        maps: level maps of captured heads in the last run, by assignment, layer and head.
    """

    plan: Plan
    source: str
    grid: TokenGrid
    errors: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    measured: str = ""
    maps: Maps = field(default_factory=dict)
    grid_note: str = ""
    frames: NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, plan: Plan, source: str, grid: str | None = None) -> ShownPlan:
        """A plan on the grid that is given or that its provenance names."""
        named = plan.provenance.get("grid") if grid is None else grid
        parsed = parse_grid(named)
        reason = "" if parsed or named is None else (
            f"The plan names the grid {str(named):.40}, which is too large to draw or no grid: "
            f"patterns are drawn on up to {MOST_TOKENS:,} tokens."
        )  # fmt: skip
        return cls(plan, source, parsed or DEFAULT_GRID, grid_note=reason)

    @classmethod
    def of_result(cls, result: Result, source: str) -> ShownPlan:
        """The plan of a run, on the run's grid, with its captured maps and its video's frames."""
        shown = replace(cls.of(result.plan, source, result.report["grid"]), maps=result.maps)
        if result.errors is not None:
            errors, measured = result.errors.by_assignment, result.errors.measured
            shown = replace(shown, errors=errors, measured=measured)
        if shown.grid_note:
            return shown
        picked = frames_of(shown.grid, result.report["size"][0])
        return replace(shown, frames=small(result.frames(picked)))

    def after(self, before: ShownPlan | None) -> ShownPlan:
        """With what is known from the plan that was shown before.

        The frames of a video fit a grid of the same shape, and errors fit the same plan.
        """
        shown = self
        if before is None:
            return shown
        if shown.frames is None and before.grid.shape == shown.grid.shape:
            shown = replace(shown, frames=before.frames)
        if not shown.errors and before.runs_as(shown.plan):
            shown = replace(shown, errors=before.errors, measured=before.measured)
        return shown

    def runs_as(self, plan: Plan) -> bool:
        """Whether another plan gives the same patterns to the same heads."""
        mine = self.plan
        return (mine.patterns, mine.assignments) == (plan.patterns, plan.assignments)


def parse_grid(text: str | None) -> TokenGrid | None:
    """The video part of a grid's name in a report or provenance; None if it is not a name.

    A grid too large to draw is None as well.
    """
    try:
        grid = TokenGrid.parse(str(text))
    except ValueError:
        return None
    return grid if is_drawable(grid) else None


def is_drawable(grid: TokenGrid) -> bool:
    """Whether patterns are drawn on a grid, which an uploaded plan may name."""
    return grid.video_tokens <= MOST_TOKENS and max(grid.height, grid.width) <= MOST_SIDE


def shown_assignments(plan: Plan) -> list[str]:
    """The assignments to show: those of the schedule; if it has none, the first of the plan."""
    return list(plan.schedule.assignments) or list(plan.assignments)[:1]


def first_assignment(plan: Plan) -> str | None:
    """The assignment to show first: of the last sparse phase; None if the plan has none."""
    used = [p.assignment for p in plan.schedule.phases if p.assignment in plan.assignments]
    return used[-1] if used else next(iter(shown_assignments(plan)), None)


def schedule_page(plan: Plan, assignment: str | None = None) -> Markup:
    """The schedule as a strip, with the phases of an assignment marked."""
    phases = len(plan.schedule.phases)
    if phases > MOST_PHASES:
        return note(f"{phases} phases are too many to draw: at most {MOST_PHASES} are drawn.")
    stretches = spans(plan.schedule)
    marked = assignment if len(shown_assignments(plan)) > 1 else None
    return render("schedule", spans=stretches, text=in_words(stretches), marked=marked)


def map_page(
    shown: ShownPlan | None,
    assignment: str | None,
    colour: str = "kind",
    selected: tuple[int, int] | None = None,
) -> Markup | str:
    """The map of an assignment: a table of buttons, layers down, heads across.

    Args:
        shown: the plan.
        assignment: of the plan.
        colour: what a cell shows: `kind`, `density` or `error`.
        selected: layer and head that are shown in detail.
    """
    if shown is None:
        return ""
    plan = shown.plan
    if assignment not in shown_assignments(plan) or colour not in COLOURS:
        return note("Every step of this plan is dense.")
    layers, heads = plan.model["layers"], plan.model["heads"]
    if layers * heads > MOST_CELLS:
        return note(f"{layers} x {heads} heads are too many to draw: at most {MOST_CELLS:,} are.")
    values = None
    if colour == "density":
        used = {name for row in plan.assignments[assignment] for name in row}
        try:
            check_lowering(shown.grid, len(used))
            values = head_densities(plan, assignment, shown.grid)
        except ValueError as error:
            return note(str(error), "bad")
    elif colour == "error":
        values = shown.errors.get(assignment)
    heat = None if values is None else np.sqrt(values / (values.max() or 1.0))
    return render(
        "heads", map=head_map(plan, assignment), colour=colour, values=values, heat=heat,
        selected=selected or (), start=selected or (0, 0),
    )  # fmt: skip


def head_page(shown: ShownPlan, assignment: str, layer: int, head: int) -> Markup:
    """One head: its pattern on the grid, its density and its measured error.

    Raises:
        ValueError: if there is no such head, or the grid is too large to draw.
    """
    plan = shown.plan
    rows = plan.assignments.get(assignment)
    if rows is None or not 0 <= layer < len(rows) or not 0 <= head < len(rows[layer]):
        raise ValueError(f"the plan has no layer {layer}, head {head} in {assignment!r}")
    name = rows[layer][head]
    pattern = plan.patterns[name]
    errors = shown.errors.get(assignment)
    check_lowering(shown.grid, 1)
    levels = shown.maps.get((assignment, layer, head))
    query = None if shown.frames is None else standing_out(shown.frames, shown.grid)
    view = pattern_view(pattern, shown.grid, levels, query, SHOWN)
    keys = None
    if view is not None:
        frames = shown.frames
        keys = key_pixels(view) if frames is None else over_frames(view, frames)
    return render(
        "head", layer=layer, head=head, assignment=assignment, name=name,
        many=len(shown_assignments(plan)) > 1, pattern=pattern, settings=pattern.to_dict(),
        density=density(pattern, shown.grid), view=view, grid=shown.grid, tokens=BLOCK,
        error=None if errors is None else errors[layer, head], measured=shown.measured,
        blocks=image_url(level_pixels(view.blocks)) if view else "",
        keys="" if keys is None else image_url(keys), video=shown.frames is not None,
        captured=not isinstance(pattern, GeometricPattern), levels=LEVEL_NAMES,
    )  # fmt: skip


def check_lowering(grid: TokenGrid, patterns: int) -> None:
    """Raise ValueError if it would take too long to lower so many patterns on a grid."""
    if not is_drawable(grid):
        raise ValueError(
            f"the grid {grid} is too large to draw: at most {MOST_TOKENS:,} tokens and "
            f"{MOST_SIDE} rows and columns are drawn"
        )
    most = MOST_LOWERED // grid.video_tokens
    if patterns > most:
        raise ValueError(
            f"{patterns} patterns are too many to lower on the grid {grid}: at most {most} are"
        )
