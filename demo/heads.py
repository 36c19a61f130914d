"""Pieces of the Plan tab as HTML: the layer x head map, the schedule, and one head in detail."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ajour.demo.pieces import png
from ajour.grid import BLOCK, TokenGrid
from ajour.lowering import density, level_map
from ajour.orders import order
from ajour.patterns import KINDS, GeometricPattern
from ajour.schedule import DENSE
from ajour.search.pictures import FRAMES, SHADES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ajour.patterns import Pattern
    from ajour.plan import Plan

MOST_CELLS = 8192
"""A larger map is not drawn."""

COLOURS = ("kind", "density", "error")


@dataclass(frozen=True)
class Shown:
    """The plan that a user looks at.

    Attributes:
        plan: the plan.
        source: where it came from, for people.
        grid: the grid to draw patterns on.
        errors: by assignment, (layers, heads): measured squared error of each head's output, over
            the squared norm of its layer's.
        measured: how these were measured, for people.
        maps: level maps of captured heads in the last run, by assignment, layer and head.
    """

    plan: Plan
    source: str
    grid: TokenGrid
    errors: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    measured: str = ""
    maps: dict[tuple[str, int, int], NDArray[np.int8]] = field(default_factory=dict)


def parse_grid(text: str | None) -> TokenGrid | None:
    """The video part of a grid's name, as in reports and provenance; None if it is none."""
    try:
        frames, height, width = (int(n) for n in str(text).split(" ")[0].split("x"))
        return TokenGrid(frames, height, width)
    except ValueError:
        return None


def usual_assignment(plan: Plan) -> str | None:
    """The assignment to show first: the sparsest phase's; None if the plan is dense throughout."""
    used = [phase.assignment for phase in plan.schedule.phases if phase.assignment != DENSE]
    return used[-1] if used else next(iter(plan.assignments), None)


def head_map(shown: Shown, assignment: str, colour: str = "kind") -> str:
    """The map of an assignment: a table of buttons, layers down, heads across.

    Args:
        shown: the plan.
        assignment: of the plan.
        colour: what a cell shows: `kind`, `density` or `error`.
    """
    plan = shown.plan
    layers, heads = plan.model["layers"], plan.model["heads"]
    if layers * heads > MOST_CELLS:
        return f'<p class="aj-note">{layers} x {heads} heads are too many to draw.</p>'
    values = _values(shown, assignment, colour)
    rows = []
    for layer, names in enumerate(plan.assignments[assignment]):
        cells = []
        for head, name in enumerate(names):
            family = plan.patterns[name].kind
            label = f"layer {layer}, head {head}: {name}"
            look = f"f-{family}"
            style = ""
            if colour != "kind":
                value = None if values is None else values[layer, head]
                label += "" if value is None else f", {colour} {value:.3g}"
                look, style = "heat", _heat_style(value, values)
            first = ' tabindex="0"' if layer == head == 0 else ' tabindex="-1"'
            cells.append(
                f'<td><button type="button" class="{look}"{style}{first} '
                f'aria-label="{html.escape(label)}" title="{html.escape(label)}"></button></td>'
            )
        rows.append(f'<tr><th scope="row">{layer}</th>{"".join(cells)}</tr>')
    across = "".join(f'<th scope="col">{head}</th>' for head in range(heads))
    return (
        f'{_legend(plan, assignment, colour, values)}<ajour-heads><div class="scroll"><table '
        f'style="--heads:{heads}"><caption>Layers down, heads across. Arrow keys move, Enter '
        f'chooses.</caption><thead><tr><th scope="col"><span>layer</span></th>{across}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></ajour-heads>"
    )


def schedule(plan: Plan) -> str:
    """The phases over the noise level."""
    phases = plan.schedule.phases
    ends = [*(phase.from_noise_level for phase in phases[1:]), 0.0]
    parts, words = [], []
    for phase, end in zip(phases, ends, strict=True):
        kind = "dense" if phase.assignment == DENSE else "sparse"
        again = f", dense every {phase.dense_every} steps" if phase.dense_every else ""
        words.append(f"{phase.assignment} from {phase.from_noise_level:g} to {end:g}{again}")
        parts.append(
            f'<span class="{kind}" style="flex:{max(phase.from_noise_level - end, 0.02):.4f}" '
            f'title="{html.escape(words[-1], quote=True)}">'
            f"<b>{html.escape(phase.assignment)}</b></span>"
        )
    text = "; ".join(words)
    return (
        f'<div class="aj-schedule" role="img" aria-label="Noise level: {html.escape(text)}">'
        f'{"".join(parts)}</div><div class="aj-ends"><span>noise 1</span>'
        f"<span>noise 0</span></div><p class='aj-small'>{html.escape(text)}.</p>"
    )


def facts(shown: Shown) -> str:
    """What a plan is for and where it came from."""
    model = shown.plan.model
    line = (
        f"{shown.source}. For {model['transformer']}: {model['layers']} layers of "
        f"{model['heads']} heads, head size {model['head_dim']}. Drawn on grid {shown.grid}."
    )
    return f'<p class="aj-note">{html.escape(line)}</p>'


def detail(shown: Shown, assignment: str, layer: int, head: int) -> str:
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
    named = name if name == pattern.kind else f"{name} ({pattern.kind})"
    errors = shown.errors.get(assignment)
    error = (
        "not measured yet" if errors is None else f"{errors[layer, head]:.2g} of the layer's output"
    )
    told = {
        "Pattern": f"{named}: a query sees {pattern.sees}",
        "Settings": ", ".join(f"{k} {v}" for k, v in pattern.to_dict().items() if k != "kind"),
        "Token order": pattern.order,
        "Density": f"{density(pattern, shown.grid):.3f} of dense attention's tiles",
        "Squared error": error,
    }
    pictures = _pictures(pattern, shown.grid, shown.maps.get((assignment, layer, head)))
    items = "".join(
        f"<div><dt>{key}</dt><dd>{html.escape(value or 'none')}</dd></div>"
        for key, value in told.items()
    )
    return (
        f'<h3 class="aj-title">Layer {layer}, head {head}</h3>'
        f'<dl class="aj-facts">{items}</dl>{pictures}'
        + (f'<p class="aj-small">{html.escape(shown.measured)}</p>' if errors is not None else "")
    )


def _pictures(pattern: Pattern, grid: TokenGrid, levels: NDArray[np.int8] | None) -> str:
    """The block map, and what the query in the middle of the grid sees in a few frames."""
    if isinstance(pattern, GeometricPattern):
        levels = level_map(pattern, grid)
    if levels is None or len(levels) != grid.video_blocks:
        return (
            '<p class="aj-small">Its blocks are measured anew in every run: generate with this '
            "plan to see those of your run.</p>"
        )
    place = np.argsort(order(pattern.order, grid.shape))
    frames, height, width = grid.shape
    middle = (frames // 2 * height + height // 2) * width + width // 2
    seen = levels[place[middle] // BLOCK][place // BLOCK].reshape(grid.shape)
    picked = np.unique(np.linspace(0, frames - 1, FRAMES).round().astype(int))
    row = np.pad(SHADES[seen[picked].astype(int) + 1], ((0, 0), (0, 0), (0, 1), (0, 0)))
    row[:, :, -1] = 128
    keys = np.concatenate(list(row), axis=1)[:, :-1]
    own = "" if isinstance(pattern, GeometricPattern) else " As measured in the last run."
    return (
        f'<div class="aj-pictures"><figure><img class="pixels" src="{png(SHADES[levels + 1])}" '
        f'alt="Block map of the pattern on grid {grid}"><figcaption>Query blocks down, key blocks '
        f'across</figcaption></figure><figure><img class="pixels" src="{png(keys)}" alt="Keys that '
        f'the middle query sees, in frames {", ".join(map(str, picked))}"><figcaption>What the '
        f"query in the middle sees, in frames {', '.join(map(str, picked))}</figcaption></figure>"
        '</div><p class="aj-small">Darkest is exact, paler is pooled 2x, 4x and 8x, palest is left '
        f"out. Blocks are of {BLOCK} tokens.{own}</p>"
    )


def _values(shown: Shown, assignment: str, colour: str) -> NDArray[np.float64] | None:
    if colour == "error":
        return shown.errors.get(assignment)
    if colour != "density":
        return None
    plan = shown.plan
    known = {name: density(pattern, shown.grid) for name, pattern in plan.patterns.items()}
    return np.array([[known[name] for name in row] for row in plan.assignments[assignment]])


def _heat_style(value: float | None, values: NDArray[np.float64] | None) -> str:
    if value is None or values is None:
        return ' style="--heat:0"'
    top = float(values.max()) or 1.0
    return f' style="--heat:{(value / top) ** 0.5:.3f}"'


def _legend(plan: Plan, assignment: str, colour: str, values: NDArray[np.float64] | None) -> str:
    if colour == "kind":
        used = {plan.patterns[name].kind for row in plan.assignments[assignment] for name in row}
        items = [
            f'<li><i class="f-{family}"></i>{family}</li>' for family in KINDS if family in used
        ]
        return f'<ul class="aj-legend" aria-label="Families">{"".join(items)}</ul>'
    if values is None:
        return '<p class="aj-note">Errors are not measured yet: press Measure errors.</p>'
    return (
        f'<ul class="aj-legend"><li><i class="heat" style="--heat:0"></i>{colour} 0</li>'
        f'<li><i class="heat" style="--heat:1"></i>{values.max():.3g}</li></ul>'
    )
