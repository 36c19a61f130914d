"""The kinds of result files and their charts, from runs of the bundled model to single kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ajour.demo.charts import Series, chart, frontier_chart, table
from ajour.search.report.figures import fitted

Row = Mapping[str, Any]
Rows = Sequence[Row]


@dataclass(frozen=True)
class Kind:
    """A kind of result file.

    Args:
        template: its section: title, what was measured and against what, and its pictures.
        keys: the keys by which the first row of such a file is recognised.
        values: further values for the template, from the file's contents.
    """

    template: str
    keys: frozenset[str]
    values: Callable[[Row], dict[str, Any]] = lambda _: {}


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
    tried = [{"verified": "on the way"} | plan for plan in data["verified"] if plan != chosen]
    simple = [{"verified": f"{p['name']} for all heads"} | p for p in data["baselines"]]
    return [{"verified": "chosen"} | chosen, *tried, *simple]


PLAN_COLUMNS: dict[str, tuple[str, str]] = {
    "plan": ("plan", "{}"),
    "density": ("density, sparse steps", "{:.2f}"),
    "mean_density": ("density, all steps", "{:.2f}"),
    "dense_seconds": ("dense", "{:.1f} s"),
    "sparse_seconds": ("sparse", "{:.1f} s"),
    "speedup": ("speed-up", "{:.2f}x"),
    "psnr_db": ("PSNR", "{:.1f} dB"),
    "ssim": ("SSIM", "{:.3f}"),
    "all": ("prompt adherence", "{:.3f}"),
}
"""By key of a row: the column's title and the format of its values."""


def _plans(data: Row) -> dict[str, Any]:
    """A table of all runs; if several have a plan, also their quality against density."""
    rows = [{**row, **(row.get("adherence") or {})} for row in data["rows"]]
    known = {key: column for key, column in PLAN_COLUMNS.items() if any(key in row for row in rows)}
    cells = [
        [
            form.format(row[key]) if row.get(key) is not None else ""
            for key, (_, form) in known.items()
        ]
        for row in rows
    ]
    titles = [title for title, _ in known.values()]
    drawn = [row for row in rows if row.get("mean_density") is not None]
    labels = [f"{row['plan']}: {row['psnr_db']:.2f} dB" for row in drawn]
    points = [(row["mean_density"], row["psnr_db"]) for row in drawn]
    title, axes = "PSNR by mean density", ("mean density of all steps", "PSNR, dB")
    return {
        "plans": table(titles, cells, "Plans, their speed and their quality"),
        "drawn": chart(
            title, *axes, [Series("plans", points if len(drawn) > 1 else [], "dots", labels)]
        ),
    }


def _prompts(data: Row) -> dict[str, Any]:
    """A table of the shares of true claims, by size and kind of prompt."""
    kinds = list(dict.fromkeys(kind for row in data["rows"] for kind in row["claims"]))
    titles = ["size", "prompts", "guidance", *kinds]
    cells = []
    for row in data["rows"]:
        shares = [row["claims"].get(kind) for kind in kinds]
        told = ["" if share is None else f"{share:.0%}" for share in shares]
        cells.append(
            [row["size"], f"{row['prompts']} {row['kind']}", f"{row['guidance']:g}", *told]
        )
    return {"claims": table(titles, cells, "True claims of prompts")}


def _search(data: Row) -> dict[str, Any]:
    """The predicted frontier, the verified plans, and plans of one pattern for all heads."""
    rows, single = rows_of(data), "one pattern for all heads"
    names = {"on the way": "verified on the way", single: single, "chosen": "chosen"}
    groups: dict[str, list[tuple[str, float, float]]] = {name: [] for name in names.values()}
    for row in rows:
        point = (row["verified"], row["speedup"], row["psnr_db"])
        groups[names.get(row["verified"], single)].append(point)
    qualities = [row["psnr_db"] for row in rows]
    chosen = data["chosen"]
    curve = fitted(
        [(point["seconds"], point["decibels"]) for point in data["frontier"]],
        (chosen["seconds"], chosen["decibels"]),
        (chosen["speedup"], chosen["psnr_db"]),
    )
    near = [(x, y) for x, y in curve if min(qualities) - 3 < y < max(qualities) + 5]
    return {"drawn": frontier_chart("Speed-up against PSNR", near, groups)}


def _kernels(data: Row) -> dict[str, Any]:
    """Speed-up over dense attention against density, one chart per shape."""
    shapes: dict[tuple[int, ...], list[Row]] = {}
    for row in data["rows"]:
        shapes.setdefault(tuple(row[key] for key in "BHSD"), []).append(row)
    charts = []
    for (batch, heads, tokens, size), rows in shapes.items():
        dense = next((row["ms"] for row in rows if row["backend"] == "sdpa"), None)
        if dense is None:
            continue
        densities = np.geomspace(min(row["density"] for row in rows), 1, 40)
        series = [Series("SDPA's pace on selected tiles", [(x, 1 / x) for x in densities], "line")]
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
        charts.append((title, chart(name, "density", "speed-up over SDPA", series, zero=True)))
    return {"charts": charts}


KINDS = (
    Kind("kind_plans", frozenset({"plan", "psnr_db", "mean_density"}), _plans),
    Kind("kind_prompts", frozenset({"size", "prompts", "claims", "guidance"}), _prompts),
    Kind("kind_search", frozenset({"verified", "speedup", "psnr_db"}), _search),
    Kind("kind_times", frozenset({"search_seconds", "cost_model_error", "attention_seconds"})),
    Kind("kind_transformers", frozenset({"case", "arm", "ms", "speedup"})),
    Kind("kind_kernels", frozenset({"backend", "density", "tflops", "S"}), _kernels),
    Kind(
        "kind_prologue",
        frozenset({"shape", "stock_ms", "exact_ms", "exact_floor_ms", "pooled_ms"}),
    ),
    Kind("kind_measuring", frozenset({"shape", "ms", "relative_to_dense"})),
)
"""A file has the first kind that fits; the page has the same order."""

OTHER = Kind("results", frozenset())
