"""The Generate tab as HTML: progress, figures of a run, and the comparison."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ajour.demo.device import DONE, FAILED, RUNNING, STOPPED, WAITING
from ajour.demo.render import note, render
from ajour.demo.store import AMPLIFIED
from ajour.pipelines.pages import image_url

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from markupsafe import Markup

    from ajour.demo.device import Job
    from ajour.demo.run import RunProgress
    from ajour.demo.store import Result

NO_EXAMPLE = note(
    "No stored example comes with this installation. Press Generate to make a first comparison."
)

DOWNLOADS = ("dense.mp4", "sparse.mp4", "report.json", "plan.json")


def url(path: Path) -> str:
    """Where a file of the store is served, relative to the page."""
    return f"gradio_api/file={path}"


def state_note(job: Job, ahead: int, stopped: str = "Nothing of this run was kept.") -> Markup:
    """A job's state in words.

    Args:
        job: the job.
        ahead: jobs that run before it.
        stopped: what follows from a stop.
    """
    if job.state == WAITING:
        runs = "1 run is" if ahead == 1 else f"{ahead} runs are"
        return note(f"Waiting: {runs} ahead of yours." if ahead else "Starting.")
    text, kind = {
        RUNNING: ("Stopping." if job.stopping else "Running.", ""),
        DONE: ("Finished.", "good"),
        STOPPED: (f"Stopped. {stopped}", ""),
        FAILED: (f"This run failed: {job.error}", "bad"),
    }[job.state]
    return note(text, kind)


def bar(text: str, label: str, value: float, most: float, **previews: Any) -> Markup:
    """A progress bar under a line of text.

    Args:
        text: the line.
        label: what the bar counts, for screen readers.
        value: how far it is.
        most: where it ends.
        previews: `strips`, addresses of pictures by name, and `coloured`, whether their colours
            are known.
    """
    return render("progress", text=text, kind="", label=label, value=value, most=most, **previews)


def run_progress(now: RunProgress) -> Markup:
    """A run's bar and its previews."""
    left = "" if now.left is None else f", about {now.left:.0f} s left"
    if now.done == 0:
        line = "Warming up, then the dense run."
    elif now.done == now.total:
        line = "Decoding and comparing."
    else:
        line = f"{now.label.capitalize()}: step {now.step} of {now.steps}{left}."
    strips = {label: image_url(strip, "jpeg") for label, strip in now.strips.items()}
    return bar(line, "steps done", now.done, now.total, strips=strips, coloured=now.coloured)


def run_cards(report: Mapping[str, Any]) -> Markup:
    """The figures of a run."""
    return render("run_cards", **report)


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
