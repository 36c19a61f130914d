"""What each kind of result file shows, from runs of the bundled model down to single kernels."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ajour.demo.charts import Series, chart, table
from ajour.search.figures import fitted

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Kind:
    """A kind of result file.

    Args:
        title: for people.
        about: what was measured, and against what; empty for nothing to say.
        keys: that the first row of such a file has.
        draw: its charts, of the file's contents.
    """

    title: str
    about: str
    keys: frozenset[str]
    draw: Callable[[Mapping[str, Any]], str]


def kind_of(rows: Rows) -> Kind:
    """The kind of a file by its first row."""
    return next((kind for kind in KINDS if kind.keys <= rows[0].keys()), OTHER)


def rows_of(data: Mapping[str, Any]) -> Rows:
    """The rows of a file; those of a search's figures are the plans that it verified.

    Raises:
        KeyError: if it is no such file.
    """
    if "frontier" not in data:
        found: Rows = data["rows"]
        return found
    chosen = data["chosen"]
    tried = [{"verified": "on the way"} | one for one in data["tried"] if one != chosen]
    plain = [{"verified": f"{one['name']} for all heads"} | one for one in data["baselines"]]
    return [{"verified": "chosen"} | chosen, *tried, *plain]


def bars(name: str, items: Sequence[tuple[str, float, str]]) -> str:
    """Bars on one scale.

    Args:
        name: read out by screen readers.
        items: (label, length, what is written at the end) each.
    """
    top = max(length for _, length, _ in items) or 1.0
    drawn = "".join(
        f'<li><span>{html.escape(label)}</span><i style="width:{100 * length / top:.1f}%"></i>'
        f"<b>{html.escape(said)}</b></li>"
        for label, length, said in items
    )
    return f'<ul class="aj-bars" aria-label="{html.escape(name)}">{drawn}</ul>'


def _blocks(parts: Sequence[tuple[str, str]]) -> str:
    """Charts beside each other, each with its title."""
    drawn = "".join(f"<div><h4>{html.escape(title)}</h4>{body}</div>" for title, body in parts)
    return f'<div class="aj-charts">{drawn}</div>'


def _plans(data: Mapping[str, Any]) -> str:
    """A table of all plans; where there are several, their quality against density too."""
    rows: Rows = data["rows"]
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "plan": lambda row: str(row["plan"]),
        "density, sparse steps": lambda row: _number(row.get("density"), ".2f"),
        "density, all steps": lambda row: _number(row["mean_density"], ".2f"),
        "dense": lambda row: _number(row.get("dense_seconds"), ".1f", " s"),
        "sparse": lambda row: _number(row.get("sparse_seconds"), ".1f", " s"),
        "speed-up": lambda row: _number(row.get("speedup"), ".2f", "x"),
        "PSNR": lambda row: _number(row["psnr_db"], ".1f", " dB"),
        "SSIM": lambda row: _number(row.get("ssim"), ".3f"),
        "true claims": lambda row: _number((row.get("adherence") or {}).get("all"), ".3f"),
    }
    cells = {name: [read(row) for row in rows] for name, read in columns.items()}
    known = {name: column for name, column in cells.items() if any(column)}
    lines = list(zip(*known.values(), strict=True))
    told = table(list(known), lines, "Plans, their speed and their quality")
    facts = []
    if data.get("prompts") and data.get("size"):
        frames, height, width = data["size"]
        facts.append(
            f"Means over {len(data['prompts'])} held-out prompts, {frames} frames of {width} x "
            f"{height}, {data['steps']} steps."
            + " Seconds are medians of denoising one of them."
            * ("dense" in known)
        )
    if data.get("dense_adherence"):
        share = data["dense_adherence"]["all"]
        facts.append(f"Of the claims that prompts make, {share:.3f} are true of dense videos.")
    said = f'<p class="aj-small">{html.escape(" ".join(facts))}</p>' if facts else ""
    if len(rows) < 2:
        return told + said
    labels = [f"{row['plan']}: {row['psnr_db']:.2f} dB" for row in rows]
    points = [(row["mean_density"], row["psnr_db"]) for row in rows]
    drawn = chart(
        "PSNR against dense by mean density of all steps",
        "mean density of all steps", "PSNR, dB", [Series("plans", points, "dots", labels)],
    )  # fmt: skip
    return f'{told}{said}<div class="aj-charts">{drawn}</div>'


def _search(data: Mapping[str, Any]) -> str:
    """The predicted frontier, what was verified, and one pattern for all heads."""
    rows = rows_of(data)
    low, high = (end(row["psnr_db"] for row in rows) for end in (min, max))
    frontier = [(one["seconds"], one["decibels"]) for one in data["frontier"]]
    curve = fitted(frontier, data["chosen"])
    near = [(x, y) for x, y in curve if low - 3 < y < high + 5]
    plain = [row for row in rows[1:] if row["verified"].endswith("for all heads")]
    tried = [row for row in rows[1:] if row not in plain]
    series = [
        Series("predicted frontier", near, "line"),
        _verified("verified on the way", tried),
        _verified("one pattern for all heads", plain),
        _verified("chosen", rows[:1], "stars"),
    ]
    drawn = chart("Speed-up against PSNR", "speed-up of denoising", "PSNR, dB", series)
    target, settings = data["target"], data["settings"]
    prompts = [len(settings[key]) for key in ("calibration", "verification")]
    said = (
        f"Target: {target['kind']} {target['value']:g}, {'met' if data['met'] else 'missed'}. "
        f"Measured on {prompts[0]} prompts, verified on {prompts[1]} others. "
        f"Chosen: {rows[0]['speedup']:.2f}x, {rows[0]['psnr_db']:.1f} dB{_kept(data)}."
    )
    return f'<p class="aj-small">{html.escape(said)}</p><div class="aj-charts">{drawn}</div>'


def _verified(name: str, rows: Rows, kind: str = "dots") -> Series:
    labels = [f"{row['verified']}: {row['speedup']:.2f}x, {row['psnr_db']:.1f} dB" for row in rows]
    return Series(name, [(row["speedup"], row["psnr_db"]) for row in rows], kind, labels)


def _transformers(data: Mapping[str, Any]) -> str:
    """Bars of milliseconds, one group per case."""
    rows: Rows = data["rows"]
    parts = []
    for case in dict.fromkeys(row["case"] for row in rows):
        own = [row for row in rows if row["case"] == case]
        items = [
            (row["arm"], row["ms"], f"{row['ms']:,.0f} ms, {row['speedup']:.2f}x{_kept(row)}")
            for row in own
        ]
        layers = f", {own[0]['layers']} layers" if "layers" in own[0] else ""
        parts.append((f"{case}{layers}", bars(f"Time of one forward pass of {case}", items)))
    return _blocks(parts)


def _kernels(data: Mapping[str, Any]) -> str:
    """Speed-up over dense attention against density, one chart per shape."""
    rows: Rows = data["rows"]
    parts = []
    shapes = dict.fromkeys((row["B"], row["H"], row["S"], row["D"]) for row in rows)
    for shape in shapes:
        own = [row for row in rows if (row["B"], row["H"], row["S"], row["D"]) == shape]
        dense = next((row["ms"] for row in own if row["backend"] == "sdpa"), None)
        if dense is None:
            continue
        least = min(row["density"] for row in own)
        pace = [(float(x), float(1 / x)) for x in np.geomspace(least, 1, 40)]
        series = [Series("SDPA's pace on selected tiles", pace, "line")]
        for backend in dict.fromkeys(row["backend"] for row in own if row["backend"] != "sdpa"):
            points = sorted(
                (row["density"], dense / row["ms"], f"{backend}, {row['list']}: {row['ms']:.2f} ms")
                for row in own
                if row["backend"] == backend
            )
            series.append(
                Series(backend, [point[:2] for point in points], "dots", [p[2] for p in points])
            )
        batch, heads, tokens, size = shape
        title = f"{tokens:,} tokens, {heads} heads of {size}" + (f", batch {batch}" * (batch > 1))
        drawn = chart(
            f"{title}: speed-up over PyTorch's attention by density",
            "density", "speed-up over SDPA", series, zero=True,
        )  # fmt: skip
        parts.append((title, drawn))
    return _blocks(parts)


def _prologue(data: Mapping[str, Any]) -> str:
    """Bars of milliseconds, one group per shape."""
    parts = []
    for row in data["rows"]:
        stock = row["stock_ms"]
        items = [("stock, q and k only", stock, f"{stock:.2f} ms")]
        for key, name in (("exact", "one pass, q, k and v"), ("pooled", "with pooled levels")):
            ms, floor = row[f"{key}_ms"], row[f"{key}_floor_ms"]
            said = f"{ms:.2f} ms, {ms / floor:.2f}x its floor"
            items.append((name, ms, said))
        parts.append((row["shape"], bars(f"Time before attention, {row['shape']}", items)))
    return _blocks(parts)


def _measuring(data: Mapping[str, Any]) -> str:
    """Bars of milliseconds, one group per shape."""
    names = {
        "dense": "dense attention", "sparse": "sparse attention",
        "capture": "measuring a captured map", "expand": "its map as lists",
        "auto": "measuring for an automatic choice",
    }  # fmt: skip
    parts = []
    for row in data["rows"]:
        dense = row["ms"]["dense"]
        items = [
            (name, row["ms"][key], f"{row['ms'][key]:.1f} ms, {row['ms'][key] / dense:.2f}x dense")
            for key, name in names.items()
            if key in row["ms"]
        ]
        title = f"{row['shape'].replace('x', ' x ')}{_kept(row)}"
        parts.append((title, bars(f"Cost of measuring at {row['shape']}", items)))
    return _blocks(parts)


def _times(data: Mapping[str, Any]) -> str:
    """How long each search took, and bars of attention's time in a pass."""
    parts = []
    for number, row in enumerate(data["rows"], 1):
        items = [
            (f"{one['plan']}, {kind}", one[kind], f"{1000 * one[kind]:.1f} ms")
            for one in row["attention_seconds"]
            for kind in ("predicted", "measured")
        ]
        title = (
            f"{row['search_seconds']:.0f} s, mixed layers {100 * row['cost_model_error']:.1f}% "
            f"off; whole runs: dense {row['dense_seconds']:.1f} s, searched plan "
            f"{row['sparse_seconds']:.1f} s{_kept(row)}, automatic plan {row['auto_seconds']:.1f} s"
        )
        parts.append((title, bars(f"Attention of a pass in search {number}", items)))
    return _blocks(parts)


def _kept(row: Mapping[str, Any]) -> str:
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
        "What a search found and verified, with a plan of one pattern for all heads beside it.",
        frozenset({"verified", "speedup", "psnr_db"}),
        _search,
    ),
    Kind(
        "Searches of full size",
        "A search with random weights, so of times only: what it took, and attention in a pass of "
        "its plan and of one pattern for all heads, predicted and measured.",
        frozenset({"search_seconds", "cost_model_error", "attention_seconds"}),
        _times,
    ),
    Kind(
        "Whole transformers",
        "One forward pass with real configurations and random weights, against stock diffusers in "
        "the same run. No quality is claimed.",
        frozenset({"case", "arm", "ms", "speedup"}),
        _transformers,
    ),
    Kind(
        "Attention kernels",
        "One attention call against PyTorch's dense one, after a check against the definition. The "
        "line is what selected tiles alone would give at the pace of dense attention.",
        frozenset({"backend", "density", "tflops", "S"}),
        _kernels,
    ),
    Kind(
        "Before attention",
        "Norm, rotation, order of tokens and pooling in one pass, against norm and rotation in "
        "stock diffusers. The floor is one read and one write at the speed of a copy.",
        frozenset({"shape", "stock_ms", "exact_ms", "exact_floor_ms", "pooled_ms"}),
        _prologue,
    ),
    Kind(
        "What measuring costs",
        "Measuring a captured map or an automatic choice happens in dense steps only; here next to "
        "one attention call of the same layer. Shapes are batch, heads, tokens, head size.",
        frozenset({"shape", "ms", "relative_to_dense"}),
        _measuring,
    ),
)
"""Looked through in this order, which is that of the page."""

OTHER = Kind("Other results", "", frozenset(), lambda _data: "")
