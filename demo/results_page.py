"""The Benchmark tab: the stored measurements as charts and tables."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajour.demo.charts import Series, chart, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Rows = Sequence[Mapping[str, Any]]

PACKED = Path(__file__).parent / "results"
TREE = Path(__file__).parents[1] / "benchmarks" / "results"

MOST_BYTES = 4 * 2**20
MOST_ROWS = 60


def results_folder() -> Path:
    """Where the results are: in the package, or in the tree that it is installed from."""
    return PACKED if PACKED.is_dir() else TREE


def page(folder: Path) -> str:
    """All result files of a folder, newest kind of machine first by name.

    Args:
        folder: of JSON files as `benchmarks.record` writes them; others are passed over.
    """
    parts = []
    for path in sorted(folder.glob("*.json")):
        if path.stat().st_size > MOST_BYTES:
            continue
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            rows = data["rows"]
            if rows and isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
                parts.append(section(path.stem, data))
        except (ValueError, KeyError, TypeError):
            continue
    if not parts:
        return '<p class="aj-note">No stored results come with this installation.</p>'
    return "".join(parts)


def section(name: str, data: Mapping[str, Any]) -> str:
    """One result file: where it was measured, its charts, and its rows."""
    rows: Rows = data["rows"]
    versions = data.get("versions") or {}
    where = [str(data[key]) for key in ("gpu", "cpu") if data.get(key)][:1]
    where += [f"{key} {value}" for key, value in versions.items()]
    where += [f"commit {data['commit']}"] if data.get("commit") else []
    return (
        f'<section class="aj-results"><h3>{html.escape(name.replace("-", " "))}</h3>'
        f'<p class="aj-small">{html.escape(", ".join(where))}</p>{_charts(rows)}'
        f"<details><summary>All {len(rows)} rows</summary>{_rows(rows, name)}</details></section>"
    )


def _charts(rows: Rows) -> str:
    first = rows[0]
    if {"backend", "density", "tflops", "S"} <= first.keys():
        return _kernels(rows)
    if {"case", "arm", "speedup"} <= first.keys():
        return _arms(rows)
    if {"plan", "psnr_db", "mean_density"} <= first.keys():
        return _plans(rows)
    return ""


def _kernels(rows: Rows) -> str:
    """Speed-up over dense attention against density, one chart per shape."""
    charts = []
    shapes = dict.fromkeys((row["B"], row["H"], row["S"], row["D"]) for row in rows)
    for shape in shapes:
        own = [row for row in rows if (row["B"], row["H"], row["S"], row["D"]) == shape]
        dense = next((row["ms"] for row in own if row["backend"] == "sdpa"), None)
        if dense is None:
            continue
        series = []
        for backend in dict.fromkeys(row["backend"] for row in own if row["backend"] != "sdpa"):
            points = sorted(
                (row["density"], dense / row["ms"], f"{row['list']}: {row['ms']:.2f} ms")
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
        charts.append(f"<div><h4>{title}</h4>{drawn}</div>")
    return f'<div class="aj-charts">{"".join(charts)}</div>'


def _arms(rows: Rows) -> str:
    """Bars of speed-up, one per case and arm."""
    top = max(row["speedup"] for row in rows)
    items = "".join(
        f"<li><span>{html.escape(row['case'])}, {html.escape(row['arm'])}</span>"
        f'<i style="width:{55 * row["speedup"] / top:.1f}%"></i><b>{row["speedup"]:.2f}x</b></li>'
        for row in rows
    )
    return f'<ul class="aj-bars" aria-label="Speed-up of a whole transformer pass">{items}</ul>'


def _plans(rows: Rows) -> str:
    """Quality against density, one point per plan."""
    labels = [f"{row['plan']}: {row['psnr_db']:.2f} dB" for row in rows]
    points = [(row["mean_density"], row["psnr_db"]) for row in rows]
    drawn = chart(
        "PSNR against dense by mean density of all steps",
        "mean density", "PSNR, dB", [Series("plans", points, "dots", labels)],
    )  # fmt: skip
    return f'<div class="aj-charts">{drawn}</div>'


def _rows(rows: Rows, name: str) -> str:
    columns = [
        key
        for key, value in rows[0].items()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    ]
    cells = [[_cell(row.get(key)) for key in columns] for row in rows[:MOST_ROWS]]
    return table(columns, cells, name.replace("-", " "))


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str("" if value is None else value)
