"""The Plan tab as HTML: the layer x head map, the schedule, and one head in detail."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup  # noqa: TC002 - gradio reads annotations at run time

from ajour.demo.render import note, render
from ajour.grid import BLOCK, TokenGrid
from ajour.lowering import density
from ajour.patterns import GeometricPattern
from ajour.pipelines.drawing import (
    LEVEL_NAMES,
    head_densities,
    head_map,
    key_pixels,
    level_pixels,
    pattern_view,
)
from ajour.pipelines.pages import image_url

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ajour.demo.store import Maps, Result
    from ajour.plan import Plan

MOST_CELLS = 8192
"""A larger map is not drawn."""

MOST_TOKENS = 2**18
"""Patterns are not drawn on a larger grid, which an uploaded plan may name."""

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

    @classmethod
    def of(cls, plan: Plan, source: str, grid: str | None = None) -> ShownPlan:
        """A plan on the grid that is given or that its provenance names."""
        parsed = parse_grid(grid) or parse_grid(plan.provenance.get("grid"))
        return cls(plan, source, parsed or DEFAULT_GRID)

    @classmethod
    def of_result(cls, result: Result, source: str) -> ShownPlan:
        """The plan of a run, on the run's grid and with its captured maps."""
        return replace(cls.of(result.plan, source, result.report["grid"]), maps=result.maps)


def parse_grid(text: str | None) -> TokenGrid | None:
    """The video part of a grid's name in a report or provenance; None if it is not a name.

    A grid too large to draw is None as well.
    """
    try:
        grid = TokenGrid.parse(str(text))
    except ValueError:
        return None
    return grid if grid.video_tokens <= MOST_TOKENS else None


def first_assignment(plan: Plan) -> str | None:
    """The assignment to show first: of the last sparse phase; None if the plan has none."""
    phases = plan.schedule.phases
    used = [phase.assignment for phase in phases if phase.assignment in plan.assignments]
    return used[-1] if used else next(iter(plan.assignments), None)


def map_page(shown: ShownPlan | None, assignment: str | None, colour: str = "kind") -> Markup | str:
    """The map of an assignment: a table of buttons, layers down, heads across.

    Args:
        shown: the plan.
        assignment: of the plan.
        colour: what a cell shows: `kind`, `density` or `error`.
    """
    if shown is None:
        return ""
    plan = shown.plan
    if assignment not in plan.assignments or colour not in COLOURS:
        return note("Every step of this plan is dense.")
    layers, heads = plan.model["layers"], plan.model["heads"]
    if layers * heads > MOST_CELLS:
        return note(f"{layers} x {heads} heads are too many to draw.")
    values = None
    if colour == "density":
        values = head_densities(plan, assignment, shown.grid)
    elif colour == "error":
        values = shown.errors.get(assignment)
    heat = None if values is None else np.sqrt(values / (values.max() or 1.0))
    return render("heads", map=head_map(plan, assignment), colour=colour, values=values, heat=heat)


def head_page(shown: ShownPlan, assignment: str, layer: int, head: int) -> Markup:
    """One head: its pattern on the grid, its density and its measured error.

    Raises:
        ValueError: if there is no such head.
    """
    plan = shown.plan
    rows = plan.assignments.get(assignment)
    if rows is None or not 0 <= layer < len(rows) or not 0 <= head < len(rows[layer]):
        raise ValueError(f"the plan has no layer {layer}, head {head} in {assignment!r}")
    name = rows[layer][head]
    pattern = plan.patterns[name]
    errors = shown.errors.get(assignment)
    view = pattern_view(pattern, shown.grid, shown.maps.get((assignment, layer, head)))
    return render(
        "head", layer=layer, head=head, name=name, pattern=pattern, settings=pattern.to_dict(),
        density=density(pattern, shown.grid), view=view, grid=shown.grid, tokens=BLOCK,
        error=None if errors is None else errors[layer, head], measured=shown.measured,
        blocks=image_url(level_pixels(view.blocks)) if view else "",
        keys=image_url(key_pixels(view)) if view else "",
        captured=not isinstance(pattern, GeometricPattern), levels=LEVEL_NAMES,
    )  # fmt: skip
