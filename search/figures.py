"""Figures of the report, as SVG text."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ajour.search.costs import Costs

INK, GRAY, BLUE, RED, GREEN = "#2e3440", "#8b95a7", "#3b6ea5", "#bf4b57", "#5b8c4a"


def fitted(
    frontier: Iterable[tuple[float, float]], plan: Mapping[str, Any]
) -> list[tuple[float, float]]:
    """A predicted frontier that runs through a plan as measured.

    Args:
        frontier: predicted seconds and decibels.
        plan: predicted `seconds` and `decibels`, measured `speedup` and `psnr_db`.

    Returns:
        Speed-up, scaled, and PSNR in dB, shifted.
    """
    scale = plan["speedup"] * plan["seconds"]
    offset = plan["psnr_db"] - plan["decibels"]
    return [(scale / seconds, decibels + offset) for seconds, decibels in frontier]


def frontier_figure(facts: Mapping[str, Any]) -> str:
    """Speed-up against quality: the predicted frontier, what was verified, simple baselines."""
    chosen = facts["chosen"]
    frontier = [(point["seconds"], point["decibels"]) for point in facts["frontier"]]
    curve = np.array(fitted(frontier, chosen))
    others = [p for p in facts["tried"] if p["key"] != chosen["key"]]
    points = [chosen, *others, *facts["baselines"]]
    low = min(p["psnr_db"] for p in points) - 3
    high = min(50.0, max(p["psnr_db"] for p in points) + 5)

    def draw(axes: Any) -> None:
        shown = (curve[:, 1] < high + 5) & (curve[:, 1] > low - 5)
        axes.plot(*curve[shown].T, color=BLUE, lw=1.6, label="predicted frontier")
        if facts["target"]["kind"] == "psnr":
            axes.axhline(facts["target"]["value"], color=GRAY, lw=0.8, ls=":")
        if facts["target"]["kind"] == "speedup":
            axes.axvline(facts["target"]["value"], color=GRAY, lw=0.8, ls=":")
        for group, colour, marker, label in (
            (others, BLUE, "o", "verified on the way"),
            (facts["baselines"], RED, "s", "one pattern for all heads"),
            ([chosen], GREEN, "*", "chosen"),
        ):
            if group:
                place = np.array([(p["speedup"], p["psnr_db"]) for p in group]).T
                size = 150 if marker == "*" else 26
                axes.scatter(*place, c=colour, marker=marker, s=size, label=label, zorder=3)
        for point in facts["baselines"]:
            axes.annotate(
                point["name"], (point["speedup"], point["psnr_db"]), (5, -9),
                textcoords="offset points", fontsize=7.5, color=RED,
            )  # fmt: skip
        axes.set(ylim=(low, high), xlabel="speed-up of denoising", ylabel="PSNR, dB")
        axes.legend(frameon=False, fontsize=7.5)

    return _svg(draw)


def time_figure(costs: Costs) -> str:
    """Predicted against measured time of layers of mixed patterns."""
    pairs = np.array(costs.held_out).reshape(-1, 2) * 1e3

    def draw(axes: Any) -> None:
        if len(pairs):
            top = 1.1 * pairs.max()
            axes.plot([0, top], [0, top], color=GRAY, lw=0.8)
            axes.fill_between([0, top], [0, 0.85 * top], [0, 1.15 * top], color=GRAY, alpha=0.15)
            axes.scatter(pairs[:, 1], pairs[:, 0], s=18, color=BLUE, label="random mixes")
            axes.set(xlim=(0, top), ylim=(0, top))
        axes.set(xlabel="measured, ms per layer", ylabel="predicted, ms per layer")

    return _svg(draw)


def error_figure(facts: Mapping[str, Any]) -> str:
    """What going sparse costs along the denoising."""
    levels, starts = facts["levels"], [*facts["bands"], facts["steps"]]
    edges = [1.0, *((levels[s - 1] + levels[s]) / 2 for s in starts[1:-1]), 0.0]

    def draw(axes: Any) -> None:
        onset = np.maximum(facts["onset"], 1e-9)
        errors = np.maximum(facts["errors"], 1e-9)
        axes.stairs(onset, edges, color=RED, lw=1.4, baseline=None)
        axes.stairs(errors, edges, color=GREEN, lw=1.4, baseline=None)
        axes.plot([], [], color=RED, label="trial plan from here to the end")
        axes.plot([], [], color=GREEN, label="added here by the chosen plan, predicted")
        axes.set(yscale="log", xlim=(1, 0), xlabel="noise level", ylabel="relative squared error")
        shown = [*onset, *errors[errors > 1e-8]]
        axes.set_ylim(min(shown) / 3, max(shown) * 8)
        axes.legend(frameon=False, fontsize=7.5, loc="upper right")

    return _svg(draw)


def _svg(draw: Callable[[Any], None]) -> str:
    """One small figure, its text kept as text."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    settings: Any = {
        "svg.fonttype": "none", "svg.hashsalt": "ajour", "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"], "font.size": 9, "text.color": INK,
        "axes.labelcolor": INK, "axes.edgecolor": GRAY, "xtick.color": INK, "ytick.color": INK,
        "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    with plt.rc_context(settings):
        figure, axes = plt.subplots(figsize=(4.6, 3.3), layout="constrained")
        draw(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        plt.close(figure)
    whole = text.getvalue()
    return whole[whole.index("<svg") :]
