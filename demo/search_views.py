"""A search as HTML: progress in words, the frontier, its end, and why a plan was chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ajour.demo.charts import frontier_chart
from ajour.demo.render import render
from ajour.demo.searching import AGAINST, COMPARING, MEASURING, TIMING, TRYING
from ajour.demo.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from ajour.demo.searching import Point, SearchProgress, SearchResult

STAGES = {
    MEASURING: "Measuring how much every pattern changes every head",
    TIMING: "Timing the patterns",
    COMPARING: "Making the dense video to compare with",
    TRYING: "Trying the first plan",
    AGAINST: "Trying plans of one pattern for all heads, to compare with",
}
"""What a search does, in words, by its stage."""

RULES = {
    "psnr": "The search takes the fastest plan, by predicted time, that reaches the target.",
    "speedup": "The search takes the plan of the best predicted quality that reaches the target.",
    "density": "The search makes one plan of this density: the best by prediction.",
}
"""How a search chooses, by the kind of its target."""


def search_progress(now: SearchProgress) -> Markup:
    """How far a search is."""
    text = STAGES[now.stage]
    if now.stage == TRYING and now.tried:
        last = now.tried[-1]
        text = (
            f"Plan {len(now.tried)} of up to {now.most}: {last.psnr_db:.1f} dB, "
            f"{last.speedup:.1f}x as fast as dense"
        )
    left = "" if now.left is None else f", at most {in_words(now.left)} left"
    if now.stage == MEASURING and now.left is not None:
        left = f", about {in_words(now.left)} left for this"
    whole = None if now.left is None else max(1, round(now.seconds - now.begun + now.left))
    return render(
        "search_progress", text=f"{text}{left}.", value=round(now.seconds - now.begun), most=whole,
        limit=in_words(now.limit),
    )  # fmt: skip


def in_words(seconds: float) -> str:
    """A time in seconds below two minutes, otherwise in minutes."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def frontier(now: SearchProgress, result: SearchResult | None = None) -> Markup:
    """The predicted frontier and the verified plans of a search."""
    groups: dict[str, list[tuple[str, float, float]]] = {
        "tried": [], "one pattern for all heads": [], "chosen": []
    }  # fmt: skip
    for point in others(now.verified, result):
        group = "one pattern for all heads" if point.name else "tried"
        groups[group].append((point.name or "tried", point.speedup, point.psnr_db))
    if result is not None:
        groups["chosen"].append(("chosen", result.chosen.speedup, result.chosen.psnr_db))
    title = f"Speed-up against PSNR: {len(now.verified)} plans verified"
    return frontier_chart(title, now.frontier, groups)


def others(verified: Sequence[Point], result: SearchResult | None) -> list[Point]:
    """Verified plans without the chosen plan."""
    if result is None:
        return list(verified)
    chosen = result.chosen.speedup, result.chosen.psnr_db
    return [point for point in verified if point.name or point[1:] != chosen]


def outcome(result: SearchResult) -> Markup:
    """The end of a search."""
    chosen = result.chosen
    reuses = result.shown.plan.schedule.reuses
    said = verdict(chosen.speedup, chosen.psnr_db, chosen.quality.ssim, reuses=reuses)
    return render(
        "outcome", result=result, verdict=said, reasons=reasons(result),
        limit=in_words(result.progress.limit),
    )  # fmt: skip


def reasons(result: SearchResult) -> list[str]:
    """Why the plan was chosen, and what to make of dots that look better in the picture."""
    kind, chosen = result.target.kind, result.chosen
    texts = [RULES[kind]]
    for point in others(result.progress.verified, result):
        faster, closer = point.speedup > chosen.speedup, point.psnr_db > chosen.psnr_db
        place = f"{point.speedup:.2f}x at {point.psnr_db:.1f} dB"
        if point.name and (faster and closer):
            texts.append(
                f"{point.name} for all heads, {place}, was better here. Such plans are only "
                "compared with; a search on more prompts says whether that holds."
            )
        elif faster and closer:
            texts.append(
                f"The plan with {place} was better when measured, not by prediction. Single runs "
                "scatter: ajour search measures on more prompts."
            )
        elif faster and kind == "psnr" and point.psnr_db < result.target.value:
            texts.append(f"The plan with {place} is faster, but misses the target.")
        elif closer and kind == "speedup" and point.speedup < result.target.value:
            texts.append(f"The plan with {place} is closer to dense, but misses the target.")
        elif closer and not faster:
            texts.append(f"The plan with {place} is closer to dense, but slower.")
    return texts
