"""The report of a search: one HTML file that needs nothing else."""

from __future__ import annotations

import html
from collections import Counter
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ajour.grid import TokenGrid
from ajour.lowering import density
from ajour.pipelines.draw import KIND_COLOURS, OTHER_COLOUR
from ajour.schedule import DENSE
from ajour.search import pictures
from ajour.search.figures import error_figure, frontier_figure, time_figure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ajour.plan import Plan
    from ajour.search.engine import Outcome

    Video = Callable[[str, int], NDArray[np.uint8] | None]


UNITS = {"psnr": "{:g} dB", "speedup": "{:g}x", "density": "density {:g}"}


def write_report(
    outcome: Outcome,
    video: Video,
    path: Path,
    command: str,
) -> None:
    """Write the report.

    Args:
        outcome: what the search found.
        video: gives the video of a plan's key (or `dense`) and prompt, or None.
        path: the HTML file.
        command: the command line that repeats the search.
    """
    facts, plan = outcome.facts, outcome.plan
    settings = facts["settings"]
    frames, height, width = (int(n) for n in facts["grid"].split(" ")[0].split("x"))
    grid = TokenGrid(frames, height, width)
    body = "".join(
        [
            _head(facts, plan),
            '<div class="columns">',
            _section(
                "Time against quality",
                "Predicted by the solver, scaled and shifted to fit the chosen plan; points are "
                f"measured on {len(settings['verification'])} verification prompts.",
                frontier_figure(facts),
            ),
            _section(
                "Error along the denoising",
                "What the final latents lose if a trial plan runs from a noise level on, and what "
                "the chosen plan adds in each band.",
                error_figure(facts),
            ),
            _section(
                "Cost model",
                f"Layers of random mixes that the model had not seen: median error "
                f"{100 * facts['cost_model_error']:.1f} %. The band is 15 %.",
                time_figure(outcome.costs),
            ),
            "</div>",
            _section("Who does what", "Layers from top to bottom, heads from left to right.",
                     _schedule(plan) + _maps(plan)),
            _section(
                "Patterns in use",
                "Left: query blocks (rows) and key blocks (columns). Right: the keys of the middle "
                "query, frame by frame. Dark is exact, paler is pooled 2x, 4x and 8x.",
                _patterns(plan, grid),
            ),
            _section("Verified plans", "Time is of denoising, by passes timed in turns with dense "
                     "ones, or by whole runs where a plan was only tried on the way to a quality; "
                     "warp is the temporal warp error over that of dense attention.",
                     _table(facts)),
            _section("Frames", "Dense above, the chosen plan below, at the same seed.",
                     _sheets(facts, video)),
            _section("Again", "", f"<pre>{html.escape(command)}</pre>"
                     "<pre>import ajour\n\najour.enable(pipe, &quot;plan.json&quot;)</pre>"),
        ]
    )  # fmt: skip
    style = files("ajour.search").joinpath("page.css").read_text()
    path.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>ajour search: {html.escape(settings['model'])}</title>"
        f"<style>{style}</style><main>{body}</main></html>\n",
        encoding="utf-8",
    )


def verdict(facts: Mapping[str, Any]) -> str:
    """Whether the target is met, and by what, if not by measurement."""
    word = "met" if facts["met"] else "missed"
    if facts["met_by"] == "measurement":
        return word
    predicted = facts["dense_seconds"] / facts["chosen"]["seconds"]
    return f"{word} by prediction ({predicted:.2f}x)"


def _head(facts: Mapping[str, Any], plan: Plan) -> str:
    chosen, where = facts["chosen"], plan.provenance
    target = facts["target"]
    goal = UNITS[target["kind"]].format(target["value"])
    cards = [
        (f"{chosen['speedup']:.2f}x", "faster denoising", ""),
        (f"{chosen['psnr_db']:.1f} dB", "PSNR against dense", ""),
        (f"{chosen['ssim']:.3f}", "SSIM", ""),
        (f"{facts['density']:.3f}", "density over all steps", ""),
        (goal, f"target {verdict(facts)}", "good" if facts["met"] else "bad"),
    ]  # fmt: skip
    boxes = "".join(
        f'<div class="card {kind}"><b>{value}</b><span>{name}</span></div>'
        for value, name, kind in cards
    )
    versions = ", ".join(f"{k} {v}" for k, v in where["versions"].items())
    line = (
        f"{where['pipeline']}, weights {where['fingerprint']}, grid {facts['grid']}, "
        f"{facts['steps']} steps, {where['dtype']} on {where['device']}; {versions}"
    )
    return (
        f"<h1>{html.escape(facts['settings']['model'])}</h1><p>{html.escape(line)}</p>"
        f'<div class="cards">{boxes}</div>'
    )


def _section(title: str, text: str, content: str) -> str:
    return f"<section><h2>{title}</h2><p>{text}</p>{content}</section>"


def _colour(family: str) -> str:
    return KIND_COLOURS.get(family, OTHER_COLOUR)


def _schedule(plan: Plan) -> str:
    """The phases over the noise level."""
    phases = plan.schedule.phases
    ends = [phase.from_noise_level for phase in phases[1:]] + [0.0]
    parts = [
        f'<span style="flex:{phase.from_noise_level - end:.4f};background:'
        f'{"#4c566a" if phase.assignment == DENSE else "#6b93bd"}">{phase.assignment}</span>'
        for phase, end in zip(phases, ends, strict=True)
    ]
    ticks = " ".join(f"{phase.from_noise_level:.2f}" for phase in phases)
    return (
        f'<div class="strip">{"".join(parts)}</div><div class="ends"><span>noise level 1</span>'
        f"<span>phases begin at {ticks}</span><span>0</span></div>"
    )


def _maps(plan: Plan) -> str:
    """A layer x head map of each assignment, coloured by family."""
    families = dict.fromkeys(pattern.kind for pattern in plan.patterns.values())
    legend = "".join(f'<span><i style="background:{_colour(f)}"></i>{f}</span>' for f in families)
    heads = plan.model["heads"]
    cell = max(4, min(16, 480 // plan.model["layers"]))
    maps = []
    for name, layers in plan.assignments.items():
        cells = "".join(
            f'<i style="background:{_colour(plan.patterns[head].kind)}" '
            f'title="layer {index}: {head}"></i>'
            for index, row in enumerate(layers)
            for head in row
        )
        maps.append(
            f'<div>{name}<div class="heat" style="grid-template-columns:repeat({heads},1fr);'
            f'--cell:{cell}px">{cells}</div></div>'
        )
    return f'<div class="legend">{legend}</div><div class="maps">{"".join(maps)}</div>'


def _patterns(plan: Plan, grid: TokenGrid) -> str:
    used = Counter(name for a in plan.assignments.values() for row in a for name in row)
    boxes = []
    for name, count in used.most_common():
        pattern = plan.patterns[name]
        images = [picture(pattern, grid) for picture in (pictures.block_map, pictures.seen_keys)]
        shown = "".join(f'<img alt="{name}" src="{image}">' for image in images if image)
        boxes.append(
            f'<div class="pattern">{shown}<div><b>{name}</b>, {count} heads, density '
            f"{density(pattern, grid):.3f}<small>{html.escape(str(pattern))}</small></div>"
            "</div>"
        )
    return f'<div class="patterns">{"".join(boxes)}</div>'


def _table(facts: Mapping[str, Any]) -> str:
    names = ("plan", "predicted", "measured", "PSNR", "SSIM", "warp", "whole run")
    rows = [("chosen", facts["chosen"])]
    rows += [("tried", one) for one in facts["tried"] if one["key"] != facts["chosen"]["key"]]
    rows += [(one["name"], one) for one in facts["baselines"]]
    lines = []
    for name, one in rows:
        warp = one["warp"] / one["dense_warp"] if one["dense_warp"] else 1.0
        cells = [
            name, f"{facts['dense_seconds'] / one['seconds']:.2f}x", f"{one['speedup']:.2f}x",
            f"{one['psnr_db']:.2f} dB", f"{one['ssim']:.4f}", f"{warp:.2f}",
            f"{one['run_seconds']:.1f} s",
        ]  # fmt: skip
        kind = ' class="chosen"' if name == "chosen" else ""
        lines.append(f"<tr{kind}>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _sheets(facts: Mapping[str, Any], video: Video) -> str:
    sheets = []
    for index, prompt in enumerate(facts["settings"]["verification"]):
        pair = [video(key, index) for key in ("dense", facts["chosen"]["key"])]
        images = "".join(
            f'<img alt="" src="{pictures.contact_sheet(one)}">' for one in pair if one is not None
        )
        value = facts["chosen"]["psnr_db_each"][index]
        sheets.append(
            f'<div class="sheet">{images}<small>{html.escape(prompt)} {value:.1f} dB</small></div>'
        )
    return "".join(sheets)
