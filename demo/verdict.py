"""A run in one sentence: how much faster it is, and whether the video looks the same.

The thresholds are explained in docs/demo.md.
"""

from __future__ import annotations

from typing import NamedTuple

from ajour.pipelines.measures import EQUAL_DB, EVEN

SAME_DB, SAME_SSIM = 30.0, 0.95
"""From here on, both, differences are hard to see when the videos play side by side."""

CLOSE_DB, CLOSE_SSIM = 25.0, 0.9
"""From here on, both, the same things are at the same places, and details differ."""


class Verdict(NamedTuple):
    """A verdict.

    Attributes:
        text: for example "2.1x faster, looks the same".
        kind: `good`, `bad`, or empty for a gain that costs quality.
        advice: what to do next, if there is a reason to do anything.
    """

    text: str
    kind: str
    advice: str = ""


def looks(psnr_db: float, ssim: float) -> str:
    """How a video looks beside the dense video."""
    if psnr_db >= EQUAL_DB:
        return "the videos are equal"
    if psnr_db >= SAME_DB and ssim >= SAME_SSIM:
        return "looks the same"
    if psnr_db >= CLOSE_DB and ssim >= CLOSE_SSIM:
        return "small differences"
    return "looks different"


def verdict(
    speedup: float,
    psnr_db: float,
    ssim: float,
    attention: float | None = None,
    reuses: bool = False,
) -> Verdict:
    """The verdict on a run.

    Args:
        speedup: dense seconds over sparse seconds.
        psnr_db: of the sparse video against the dense video.
        ssim: same as `psnr_db`.
        attention: self-attention's share of the dense run's time, if it is known.
        reuses: whether steps are reused.
    """
    look = looks(psnr_db, ssim)
    if speedup < 1 + EVEN:
        slow = speedup <= 1 - EVEN
        text = f"{speedup:.2f}x, slower than dense" if slow else "no faster than dense"
        share = "" if attention is None else f" Attention takes {attention:.0%} of the dense run."
        steps = "" if reuses else ", or a plan that reuses steps"
        advice = f"There is little to gain here.{share} Choose a larger size{steps}."
        return Verdict(f"{text}, {look}", "bad", advice)
    text = f"{speedup:.1f}x faster, {look}"
    if look == "looks different":
        return Verdict(text, "bad", "Choose a plan with a higher density, or search for a PSNR.")
    return Verdict(text, "good" if look != "small differences" else "")
