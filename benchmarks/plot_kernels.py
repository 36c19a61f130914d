"""TFLOP/s against density, from the results of `benchmarks.kernels`.

python -m benchmarks.plot_kernels benchmarks/results/kernels-h200.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """TFLOP/s against density, a panel for each shape."""
    shapes = list(dict.fromkeys((r["H"], r["S"], r["D"]) for r in rows))
    figure, axes = plt.subplots(1, len(shapes), figsize=(5 * len(shapes), 4), sharey=True)
    for axis, shape in zip(np.atleast_1d(axes), shapes, strict=True):
        own = [r for r in rows if (r["H"], r["S"], r["D"]) == shape]
        for arm in dict.fromkeys(r["backend"] for r in own):
            points = sorted((r["density"], r["tflops"]) for r in own if r["backend"] == arm)
            if arm == "sdpa":
                axis.axhline(points[0][1], color="black", linestyle="--", label="dense SDPA")
            else:
                axis.plot(*zip(*points, strict=True), "o-", label=arm, markersize=4)
        axis.set(xscale="log", xlabel="density", title="{} heads, {:,} tokens, {}".format(*shape))
        axis.grid(alpha=0.3)
    np.atleast_1d(axes)[0].set_ylabel("TFLOP/s on selected tiles")
    np.atleast_1d(axes)[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    source = Path(sys.argv[1])
    plot(json.loads(source.read_text())["rows"], source.with_suffix(".png"))
