"""The Benchmark tab's pictures: quality against speed, whole models, kernels."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ajour.demo.charts import Series, chart
from ajour.demo.render import render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

    from ajour.demo.result_kinds import Row

CACHES = ("FirstBlockCache", "MagCache", "TaylorSeer")
"""Step caches of diffusers, which rows of a method are named after."""

OURS = {"plan": "bundled plan", "auto": "automatic", "searched": "searched, every step computed"}
"""Rows of ajour's own plans, and their labels."""

MOST_NAMED = 12
"""Points of a chart whose labels are all written; of more points, only those of ajour's plans."""


class Gain(NamedTuple):
    """How much faster a model is.

    Attributes:
        name: of the model and its size.
        speedup: over dense attention.
        text: dense and sparse times.
    """

    name: str
    speedup: float
    text: str


def story(files: Mapping[str, Row]) -> Markup:
    """The pictures of some result files; empty if there is nothing to draw.

    Args:
        files: contents by name.
    """
    methods, setting = quality_by_speed(files)
    return render(
        "story", methods=methods, setting=setting, models=whole_models(files),
        kernels=kernels(files),
    )  # fmt: skip


def quality_by_speed(files: Mapping[str, Row]) -> tuple[Markup, Row | None]:
    """PSNR against speed-up of whole runs at one size, a series for each kind of method.

    Of several sizes, the one with the most rows. Rows without times are left out.

    Returns:
        The chart, and the first file of that size for its facts.
    """
    settings: dict[tuple[Any, ...], list[tuple[Row, Row]]] = {}
    for data in files.values():
        for row in data.get("rows", ()):
            if "psnr_db" in row and speedup(row) is not None and data.get("size"):
                settings.setdefault((*data["size"], data.get("steps")), []).append((row, data))
    if not settings:
        return chart("", "", "", []), None
    rows = max(settings.values(), key=len)
    series: dict[str, list[tuple[float, float, str]]] = {}
    for row, _ in rows:
        label = str(OURS.get(row["plan"], row["plan"]))
        point = (speedup(row) or 0.0, row["psnr_db"], label)
        series.setdefault(method(row["plan"]), []).append(point)
    drawn, few = [], len(rows) <= MOST_NAMED
    for name, points in sorted(series.items(), key=lambda item: item[0] != "ajour"):
        labels = [label for *_, label in points]
        drawn.append(Series(name, [p[:2] for p in points], "dots", labels, few or name == "ajour"))
    title = "Quality against speed of whole runs"
    return chart(title, "speed-up of denoising", "PSNR, dB", drawn), rows[0][1]


def speedup(row: Row) -> float | None:
    """Of denoising: as it is given, or by the median times; None if there is neither."""
    if "speedup" in row:
        return float(row["speedup"])
    if "dense_seconds_each" not in row or "sparse_seconds_each" not in row:
        return None
    return median(row["dense_seconds_each"]) / median(row["sparse_seconds_each"])


def method(plan: str) -> str:
    """The kind of method that a row belongs to, for the legend."""
    if plan in OURS:
        return "ajour"
    cache = next((name for name in CACHES if name in plan), None)
    if cache is not None:
        return f"{cache} on a plan" if " + " in plan else cache
    return "dense, fewer steps" if plan.startswith("dense") else "simple plans"


def whole_models(files: Mapping[str, Row]) -> list[Gain]:
    """Whole runs, then single passes of large models, the fastest first."""
    runs, passes = [], []
    for data in files.values():
        rows = [row for row in data.get("rows", ()) if "tree" not in row]
        for row in rows:
            if {"search_seconds", "dense_seconds", "sparse_seconds", "num_frames"} <= row.keys():
                runs.append(_gain(
                    f"Wan 2.1 1.3B, {row['num_frames']} frames, {row['height']} x {row['width']}, "
                    "whole run", row["dense_seconds"], row["sparse_seconds"], "s",
                ))  # fmt: skip
            if row.get("plan") == "plan" and speedup(row) and data.get("size"):
                frames, height, width = data["size"]
                dense, sparse = (median(row[f"{arm}_seconds_each"]) for arm in ("dense", "sparse"))
                name = f"bundled model, {frames} frames, {height} x {width}, whole run"
                runs.append(_gain(name, dense, sparse, "s"))
        eager = [row for row in rows if str(row.get("arm", "")).endswith("eager")]
        for case in dict.fromkeys(row["case"] for row in eager):
            times = [row["ms"] for row in eager if row["case"] == case]
            dense = next(r["ms"] for r in eager if r["case"] == case and "stock" in r["arm"])
            passes.append(_gain(f"{case}, one pass", dense, min(times), "ms"))
    return [
        *sorted(runs, key=lambda gain: -gain.speedup),
        *sorted(passes, key=lambda gain: -gain.speedup),
    ]


def _gain(name: str, dense: float, sparse: float, unit: str) -> Gain:
    form = "{:,.1f}" if unit == "s" else "{:,.0f}"
    text = f"{dense / sparse:.1f}x: {form.format(dense)} to {form.format(sparse)} {unit}"
    return Gain(name, dense / sparse, text)


def kernels(files: Mapping[str, Row]) -> Markup:
    """Speed-up of the fastest kernel over PyTorch's attention by density, a series per shape."""
    shapes: dict[tuple[int, ...], list[Row]] = {}
    for data in files.values():
        for row in data.get("rows", ()):
            if {"backend", "density", "tflops", "S"} <= row.keys():
                shapes.setdefault(tuple(row[key] for key in "HSD"), []).append(row)
    series, densities = [], [1.0]
    for (heads, tokens, size), rows in shapes.items():
        points = fastest(rows)
        densities += [point[0] for point in points]
        labels = [label for *_, label in points]
        name = f"{tokens:,} tokens, {heads} heads of {size}"
        series.append(Series(name, [point[:2] for point in points], "dots", labels))
    if not series:
        return chart("", "", "", [])
    curve = [(x, 1 / x) for x in np.geomspace(min(densities), 1, 40)]
    title = "Speed-up of one attention call by density: the fewer tiles, the faster"
    return chart(
        title, "density: share of tiles that are computed", "speed-up over dense attention",
        [Series("dense pace on the computed tiles", curve, "line"), *series], zero=True,
    )  # fmt: skip


def fastest(rows: Sequence[Row]) -> list[tuple[float, float, str]]:
    """(density, speed-up, label) of the fastest backend on every list of tiles."""
    dense = next((row["ms"] for row in rows if row["backend"] == "sdpa"), None)
    if dense is None:
        return []
    best: dict[str, Row] = {}
    for row in rows:
        if row["backend"] != "sdpa" and row["ms"] < best.get(row["list"], {"ms": np.inf})["ms"]:
            best[row["list"]] = row
    return [
        (row["density"], dense / row["ms"], f"{name}, {row['backend']}: {dense / row['ms']:.1f}x")
        for name, row in best.items()
    ]
