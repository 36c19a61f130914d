"""The kinds of result files and their charts, from runs of the bundled model to single kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from ajour.demo.charts import Series, bars, chart, frontier_chart, panels, table
from ajour.demo.render import small
from ajour.search.report.figures import fitted

Row = Mapping[str, Any]
Rows = Sequence[Row]


@dataclass(frozen=True)
class Kind:
    """A kind of result file.

    Args:
        title: of its section.
        about: what was measured, and against what; may be empty.
        keys: the keys by which the first row of such a file is recognised.
        draw: draws the charts of a file's contents.
    """

    title: str
    about: str
    keys: frozenset[str]
    draw: Callable[[Row], Markup]


def kind_of(rows: Rows) -> Kind:
    """The kind of a file by its first row."""
    return next((kind for kind in KINDS if kind.keys <= rows[0].keys()), OTHER)


def rows_of(data: Row) -> Rows:
    """The rows of a file; of a search's figures, the plans that it verified.

    Raises:
        KeyError: if it is not a result file.
    """
    if "frontier" not in data:
        return list(data["rows"])
    chosen = data["chosen"]
    tried = [{"verified": "on the way"} | plan for plan in data["tried"] if plan != chosen]
    simple = [{"verified": f"{p['name']} for all heads"} | p for p in data["baselines"]]
    return [{"verified": "chosen"} | chosen, *tried, *simple]


PLAN_COLUMNS: dict[str, Callable[[Row], str]] = {
    "plan": lambda row: str(row["plan"]),
    "density, sparse steps": lambda row: _number(row.get("density"), ".2f"),
    "density, all steps": lambda row: _number(row["mean_density"], ".2f"),
    "dense": lambda row: _number(row.get("dense_seconds"), ".1f", " s"),
    "sparse": lambda row: _number(row.get("sparse_seconds"), ".1f", " s"),
    "speed-up": lambda row: _number(row.get("speedup"), ".2f", "x"),
    "PSNR": lambda row: _number(row["psnr_db"], ".1f", " dB"),
    "SSIM": lambda row: _number(row.get("ssim"), ".3f"),
    "prompt adherence": lambda row: _number((row.get("adherence") or {}).get("all"), ".3f"),
}


def _plans(data: Row) -> Markup:
    """A table of all plans; if there are several, also their quality against density."""
    rows: Rows = data["rows"]
    cells = {name: [read(row) for row in rows] for name, read in PLAN_COLUMNS.items()}
    known = {name: column for name, column in cells.items() if any(column)}
    lines = list(zip(*known.values(), strict=True))
    drawn = table(list(known), lines, "Plans, their speed and their quality")
    facts = []
    if data.get("prompts") and data.get("size"):
        frames, height, width = data["size"]
        facts.append(
            f"Means over {len(data['prompts'])} held-out prompts, {frames} frames of {width} x "
            f"{height}, {data['steps']} steps."
        )
        if "dense" in known:
            facts.append("Seconds are medians of denoising one prompt.")
    if data.get("dense_adherence"):
        share = data["dense_adherence"]["all"]
        facts.append(f"Prompt adherence of dense videos is {share:.3f}.")
    if facts:
        drawn += small(" ".join(facts))
    if len(rows) > 1:
        labels = [f"{row['plan']}: {row['psnr_db']:.2f} dB" for row in rows]
        points = [(row["mean_density"], row["psnr_db"]) for row in rows]
        title = "PSNR against dense by mean density of all steps"
        series = [Series("plans", points, "dots", labels)]
        drawn += panels([("", chart(title, "mean density of all steps", "PSNR, dB", series))])
    return drawn


def _search(data: Row) -> Markup:
    """The predicted frontier, the verified plans, and plans of one pattern for all heads."""
    chosen, *others = rows_of(data)
    simple = [row for row in others if row["verified"].endswith("for all heads")]
    tried = [row for row in others if row not in simple]
    low, high = (end(row["psnr_db"] for row in (chosen, *others)) for end in (min, max))
    frontier = [(point["seconds"], point["decibels"]) for point in data["frontier"]]
    known, measured = (
        (chosen[x], chosen[y]) for x, y in (("seconds", "decibels"), ("speedup", "psnr_db"))
    )
    near = [(x, y) for x, y in fitted(frontier, known, measured) if low - 3 < y < high + 5]
    target, settings = data["target"], data["settings"]
    text = (
        f"Target: {target['kind']} {target['value']:g}, {'met' if data['met'] else 'missed'}. "
        f"Measured on {len(settings['calibration'])} prompts, verified on "
        f"{len(settings['verification'])} others. "
        f"Chosen: {chosen['speedup']:.2f}x, {chosen['psnr_db']:.1f} dB{_density(data)}."
    )
    groups = {
        "verified on the way": tried, "one pattern for all heads": simple, "chosen": [chosen]
    }  # fmt: skip
    plans = {
        name: [(row["verified"], row["speedup"], row["psnr_db"]) for row in rows]
        for name, rows in groups.items()
    }
    return small(text) + panels([("", frontier_chart("Speed-up against PSNR", near, plans))])


def _transformers(data: Row) -> Markup:
    """Bars of milliseconds, one group per case."""
    groups: dict[str, list[Row]] = {}
    for row in data["rows"]:
        groups.setdefault(row["case"], []).append(row)
    parts = []
    for case, rows in groups.items():
        items = [
            (row["arm"], row["ms"], f"{row['ms']:,.0f} ms, {row['speedup']:.2f}x{_density(row)}")
            for row in rows
        ]
        layers = f", {rows[0]['layers']} layers" if "layers" in rows[0] else ""
        parts.append((f"{case}{layers}", bars(f"Time of one forward pass of {case}", items)))
    return panels(parts)


def _kernels(data: Row) -> Markup:
    """Speed-up over dense attention against density, one chart per shape."""
    shapes: dict[tuple[int, ...], list[Row]] = {}
    for row in data["rows"]:
        shapes.setdefault(tuple(row[key] for key in "BHSD"), []).append(row)
    parts = []
    for (batch, heads, tokens, size), rows in shapes.items():
        dense = next((row["ms"] for row in rows if row["backend"] == "sdpa"), None)
        if dense is None:
            continue
        densities = np.geomspace(min(row["density"] for row in rows), 1, 40)
        pace = [(float(x), float(1 / x)) for x in densities]
        series = [Series("SDPA's pace on selected tiles", pace, "line")]
        for backend in dict.fromkeys(row["backend"] for row in rows if row["backend"] != "sdpa"):
            points = sorted(
                (row["density"], dense / row["ms"], f"{backend}, {row['list']}: {row['ms']:.2f} ms")
                for row in rows
                if row["backend"] == backend
            )
            labels = [label for _, _, label in points]
            series.append(Series(backend, [point[:2] for point in points], "dots", labels))
        title = f"{tokens:,} tokens, {heads} heads of {size}" + (f", batch {batch}" * (batch > 1))
        name = f"{title}: speed-up over PyTorch's attention by density"
        parts.append((title, chart(name, "density", "speed-up over SDPA", series, zero=True)))
    return panels(parts)


def _prologue(data: Row) -> Markup:
    """Bars of milliseconds, one group per shape."""
    parts = []
    for row in data["rows"]:
        items = [("stock, q and k only", row["stock_ms"], f"{row['stock_ms']:.2f} ms")]
        for key, name in (("exact", "one pass, q, k and v"), ("pooled", "with pooled levels")):
            ms, floor = row[f"{key}_ms"], row[f"{key}_floor_ms"]
            items.append((name, ms, f"{ms:.2f} ms, {ms / floor:.2f}x its floor"))
        parts.append((row["shape"], bars(f"Time before attention, {row['shape']}", items)))
    return panels(parts)


MEASURED_NAMES = {
    "dense": "dense attention", "sparse": "sparse attention",
    "capture": "measuring a captured map", "expand": "its map as lists",
    "auto": "measuring for an automatic choice",
}  # fmt: skip


def _measuring(data: Row) -> Markup:
    """Bars of milliseconds, one group per shape."""
    parts = []
    for row in data["rows"]:
        times = row["ms"]
        items = [
            (name, times[key], f"{times[key]:.1f} ms, {times[key] / times['dense']:.2f}x dense")
            for key, name in MEASURED_NAMES.items()
            if key in times
        ]
        title = f"{row['shape'].replace('x', ' x ')}{_density(row)}"
        parts.append((title, bars(f"Cost of measuring at {row['shape']}", items)))
    return panels(parts)


def _times(data: Row) -> Markup:
    """How long each search took, and bars of attention's time in a pass."""
    parts = []
    for number, row in enumerate(data["rows"], 1):
        items = [
            (f"{plan['plan']}, {kind}", plan[kind], f"{1000 * plan[kind]:.1f} ms")
            for plan in row["attention_seconds"]
            for kind in ("predicted", "measured")
        ]
        title = (
            f"{row['search_seconds']:.0f} s, mixed layers {100 * row['cost_model_error']:.1f}% "
            f"off; whole runs: dense {row['dense_seconds']:.1f} s, searched plan "
            f"{row['sparse_seconds']:.1f} s{_density(row)}, automatic plan "
            f"{row['auto_seconds']:.1f} s"
        )
        parts.append((title, bars(f"Attention of a pass in search {number}", items)))
    return panels(parts)


def _density(row: Row) -> str:
    return f", density {row['density']:.2f}" if "density" in row else ""


def _number(value: Any, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"


KINDS = (
    Kind(
        "The bundled model",
        "Whole runs of the bundled model, each plan against dense attention at the same seeds.",
        frozenset({"plan", "psnr_db", "mean_density"}),
        _plans,
    ),
    Kind(
        "A search",
        "The plans that a search verified, and plans with one pattern for all heads.",
        frozenset({"verified", "speedup", "psnr_db"}),
        _search,
    ),
    Kind(
        "Searches of full size",
        "Searches with random weights, so only times are meaningful: of the search, and of "
        "attention in a pass of its plan and of plans with one pattern for all heads, predicted "
        "and measured.",
        frozenset({"search_seconds", "cost_model_error", "attention_seconds"}),
        _times,
    ),
    Kind(
        "Whole transformers",
        "One forward pass with real configurations and random weights, against stock diffusers in "
        "the same run. The weights are random, so quality is not measured.",
        frozenset({"case", "arm", "ms", "speedup"}),
        _transformers,
    ),
    Kind(
        "Attention kernels",
        "One attention call against PyTorch's dense attention, after a check against the reference "
        "operator. The line is the speed-up if each selected tile took as long as in dense "
        "attention.",
        frozenset({"backend", "density", "tflops", "S"}),
        _kernels,
    ),
    Kind(
        "Before attention",
        "Norm, rotation, token order and pooling in one pass, against norm and rotation in stock "
        "diffusers. The floor is one read and one write at the speed of a copy.",
        frozenset({"shape", "stock_ms", "exact_ms", "exact_floor_ms", "pooled_ms"}),
        _prologue,
    ),
    Kind(
        "Cost of measuring",
        "Captured maps and automatic choices are measured in dense steps only; here next to one "
        "attention call of the same layer. Shapes are batch, heads, tokens, head size.",
        frozenset({"shape", "ms", "relative_to_dense"}),
        _measuring,
    ),
)
"""A file has the first kind that fits; the page has the same order."""

OTHER = Kind("Other results", "", frozenset(), lambda _data: Markup())
