"""The Generate tab as HTML: progress, figures of a run, and the comparison."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ajour.demo.render import note, render
from ajour.demo.store import AMPLIFIED
from ajour.pipelines.pages import image_url

if TYPE_CHECKING:
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
