"""The Generate tab as HTML: progress, figures of a run, and the comparison."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from ajour.demo.attention_time import StepTime, attention_share
from ajour.demo.render import note, render
from ajour.demo.store import AMPLIFIED
from ajour.demo.verdict import verdict
from ajour.pipelines.measures import EVEN
from ajour.pipelines.pages import image_url
from ajour.pipelines.vocabulary import unknown_subject
from ajour.schedule import DENSE, REUSE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from markupsafe import Markup

    from ajour.demo.run import RunProgress
    from ajour.demo.store import Result

NO_EXAMPLE = note(
    "No stored example comes with this installation. Press Generate to make a first comparison."
)

DOWNLOADS = ("dense.mp4", "sparse.mp4", "report.json", "plan.json")


def url(path: Path) -> str:
    """Where a file of the store is served, relative to the page."""
    return f"gradio_api/file={path}"


def run_progress(now: RunProgress) -> Markup:
    """A run's bar and its previews."""
    strips = {label: image_url(strip, "jpeg") for label, strip in now.strips.items()}
    return render("run_progress", now=now, strips=strips)


class Bar(NamedTuple):
    """A bar of seconds in two parts: self-attention, projections included, and the rest."""

    name: str
    attention: float
    rest: float

    @property
    def total(self) -> float:
        """Both parts."""
        return self.attention + self.rest


def run_cards(report: dict[str, Any], example: bool = False, bundled: bool = True) -> Markup:
    """A run in a sentence, in figures, and as bars of its time.

    Args:
        report: of the run.
        example: whether it is the stored example.
        bundled: whether the model is the bundled one, which knows few words.
    """
    times = {
        arm: [StepTime(*step) for step in steps] for arm, steps in report["step_seconds"].items()
    }
    said = verdict(
        report["speedup"], report["psnr_db"], report["ssim"], attention_share(times["dense"]),
        report["reused_steps"] > 0,
    )  # fmt: skip
    groups = [step_bars(times, report["phases"]), run_bars(times, report)]
    return render(
        "run_cards", **report, verdict=said, example=example,
        words=unknown_subject(report["prompt"]) if bundled else None,
        groups=[group for group in groups if group[1]], why=why(groups[0][1], report),
    )  # fmt: skip


def step_bars(
    times: dict[str, list[StepTime]], phases: Sequence[str]
) -> tuple[str, tuple[Bar, ...]]:
    """The mean time of a computed step, dense and sparse; none without a sparse step."""
    pairs = zip(phases, times["sparse"], strict=False)
    sparse = [time for phase, time in pairs if phase not in (DENSE, REUSE)]
    if not sparse or not times["dense"]:
        return "", ()
    return "One computed step", (
        _bar("dense", times["dense"], 1 / len(times["dense"])),
        _bar("sparse", sparse, 1 / len(sparse)),
    )


def run_bars(
    times: dict[str, list[StepTime]], report: dict[str, Any]
) -> tuple[str, tuple[Bar, ...]]:
    """The time of the whole run, dense and with the plan; none without times."""
    if not times["dense"] or not times["sparse"]:
        return "", ()
    steps, reused = report["steps"], report["reused_steps"]
    computed = f"{steps - reused} of {steps} steps computed" if reused else f"{steps} steps"
    return "Whole run", (
        _bar(f"dense, {steps} steps", times["dense"]),
        _bar(f"with the plan, {computed}", times["sparse"]),
    )


def why(step: tuple[Bar, ...], report: dict[str, Any]) -> str:
    """Where the gain comes from, or does not.

    Args:
        step: the bars of a dense and of a sparse step, or none.
        report: of the run.
    """
    texts = []
    if step:
        dense, sparse = step
        ratio = dense.total / sparse.total
        if ratio >= 1 + EVEN:
            texts.append(f"a sparse step is {ratio:.1f}x faster than a dense step")
        elif ratio > 1 - EVEN:
            texts.append("a sparse step takes as long as a dense step at this size")
        else:
            texts.append(f"a sparse step takes {1 / ratio:.1f}x as long as a dense step")
    if report["reused_steps"]:
        steps = f"{report['reused_steps']} of {report['steps']} steps"
        texts.append(f"{steps} are not computed: earlier outputs are used again")
    text = "; ".join(texts)
    return text[:1].upper() + text[1:]


def _bar(name: str, steps: Sequence[StepTime], factor: float = 1.0) -> Bar:
    attention = sum(step.attention for step in steps)
    rest = sum(step.rest for step in steps)
    return Bar(name, factor * attention, factor * rest)


def comparison(result: Result, title: str) -> Markup:
    """The videos of a run for `<ajour-compare>`, and links to its files."""
    report = result.report
    names = [f"{arm.capitalize()}, {report[f'{arm}_seconds']:.1f} s" for arm in ("dense", "sparse")]
    facts = {
        "src": url(result.folder / "views.mp4"),
        "fps": report["fps"],
        "names": [*names, f"Difference, {AMPLIFIED} times as strong"],
        "psnr": report["psnr_db_each"],
        "ssim": report["ssim_each"],
    }
    facts |= zip(("frames", "height", "width"), report["size"], strict=True)
    files = {name: url(result.folder / name) for name in DOWNLOADS}
    return render(
        "comparison", title=title, prompt=report["prompt"], facts=json.dumps(facts), files=files
    )
