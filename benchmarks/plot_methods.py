"""Quality against speed of all methods, from the results of `benchmarks.methods`.

python -m benchmarks.plot_methods benchmarks/results/methods-cpu.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib.pyplot as plt

CACHES = ("FirstBlockCache", "MagCache", "TaylorSeer")


def family(name: str) -> str:
    """What a row is a setting of: its cache, with the plan below it if there is one; or itself."""
    plan, plus, cache = name.rpartition(" + ")
    kind = cache.split(" ")[0]
    return f"{plan}{plus}{kind}" if kind in CACHES else "our plans"


def speedup(row: dict[str, Any]) -> float:
    """Of denoising: over the timed turns, or over the runs of all prompts."""
    if "speedup" in row:
        return float(row["speedup"])
    return median(row["dense_seconds_each"]) / median(row["sparse_seconds_each"])


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """PSNR against speed-up, a line for the settings of each method."""
    figure, axis = plt.subplots(figsize=(8, 5))
    for name in dict.fromkeys(family(row["plan"]) for row in rows):
        own = [row for row in rows if family(row["plan"]) == name]
        points = sorted((speedup(row), row["psnr_db"]) for row in own)
        ours = name == "our plans"
        axis.plot(*zip(*points, strict=True), "o" if ours else "o-", label=name, markersize=5)
        for row in own if ours else ():
            axis.annotate(
                row["plan"], (speedup(row), row["psnr_db"]), xytext=(5, 4),
                textcoords="offset points", fontsize=8,
            )  # fmt: skip
    axis.set(xlabel="speed-up of denoising", ylabel="PSNR against dense attention, dB")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    source = Path(sys.argv[1])
    plot(json.loads(source.read_text())["rows"], source.with_suffix(".png"))
