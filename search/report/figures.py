"""Figures of the report, as SVG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.pipelines.quality import MOST_DB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ajour.search.results import Outcome
    from ajour.search.timing.costs import Costs

INK, GRAY, BLUE, RED, GREEN = "#2e3440", "#8b95a7", "#3b6ea5", "#bf4b57", "#5b8c4a"


def fitted(
    frontier: Iterable[tuple[float, float]],
    predicted: tuple[float, float],
    measured: tuple[float, float],
) -> list[tuple[float, float]]:
    """A predicted frontier, moved so that it runs through a measured plan.

    Predictions are (seconds, decibels), measured and returned figures (speed-up, PSNR in dB).
    """
    scale, offset = measured[0] * predicted[0], measured[1] - predicted[1]
    return [(scale / seconds, decibels + offset) for seconds, decibels in frontier]


def frontier_figure(outcome: Outcome) -> str:
    """Speed-up against quality: the predicted frontier, verified plans, single patterns."""
    chosen, rejected, target = outcome.chosen, outcome.rejected, outcome.settings.target
    single = outcome.baselines
    known = (plan for plan in (chosen, *rejected, *single) if plan.psnr_db < MOST_DB)
    anchor = next((plan for plan in known if np.isfinite(plan.decibels)), None)
    curve = np.empty((0, 2))
    if anchor is not None:  # a dense plan has no error that a prediction could be fitted to
        predicted, measured = (anchor.seconds, anchor.decibels), (anchor.speedup, anchor.psnr_db)
        curve = np.array(fitted(outcome.frontier, predicted, measured))
    qualities = [plan.psnr_db for plan in (chosen, *rejected, *single)]
    if target.kind == "psnr":
        qualities.append(target.value)
    low = min(qualities) - 3
    high = min(max(50.0, chosen.psnr_db + 5), max(qualities) + 5)

    def draw(axes: Any) -> None:
        shown = (curve[:, 1] < high + 5) & (curve[:, 1] > low - 5)
        if shown.any():
            axes.plot(*curve[shown].T, color=BLUE, lw=1.6, label="predicted frontier")
        if target.kind == "psnr":
            axes.axhline(target.value, color=GRAY, lw=0.8, ls=":")
        if target.kind == "speedup":
            axes.axvline(target.value, color=GRAY, lw=0.8, ls=":")
        for plans, colour, marker, label in (
            (rejected, BLUE, "o", "verified, rejected"),
            (single, RED, "s", "one pattern for all heads"),
            ([chosen], GREEN, "*", "chosen"),
        ):
            if plans:
                points = np.array([(plan.speedup, plan.psnr_db) for plan in plans]).T
                size = 150 if marker == "*" else 26
                axes.scatter(*points, c=colour, marker=marker, s=size, label=label, zorder=3)
        for plan in single:
            axes.annotate(
                plan.name, (plan.speedup, plan.psnr_db), (5, -9),
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


def error_figure(outcome: Outcome) -> str:
    """The error of sparse steps along the denoising."""
    edges = [*map(outcome.bands.edge, outcome.bands.starts), 0.0]

    def draw(axes: Any) -> None:
        onset = np.maximum(outcome.onset, 1e-9)
        errors = np.maximum(outcome.band_errors, 1e-9)
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
    """A small figure whose text stays text."""
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
    document = text.getvalue()
    return document[document.index("<svg") :]
