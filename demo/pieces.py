"""Pieces of the Generate tab as HTML: progress, figures of a run, and the comparison."""

from __future__ import annotations

import base64
import html
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.demo.device import DONE, FAILED, RUNNING, STOPPED, WAITING
from ajour.demo.store import AMPLIFIED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ajour.demo.device import Job
    from ajour.demo.run import News
    from ajour.demo.store import Result

NO_EXAMPLE = (
    '<p class="aj-note">No stored example comes with this installation. '
    "Press Generate to make a first comparison.</p>"
)


def url(path: Path) -> str:
    """Where a file of the store is served, relative to the page."""
    return f"gradio_api/file={path}"


def note(text: str, kind: str = "") -> str:
    """A line of text; `bad` is read out at once by screen readers.

    Args:
        text: plain text.
        kind: empty, `good` or `bad`.
    """
    role = ' role="alert"' if kind == "bad" else ""
    return f'<p class="aj-note {kind}"{role}>{html.escape(text)}</p>'


def state_line(job: Job, ahead: int) -> tuple[str, str]:
    """What a job's state is called, and the kind of note it makes."""
    if job.state == WAITING:
        runs = "1 run is" if ahead == 1 else f"{ahead} runs are"
        return (f"Waiting: {runs} ahead of yours." if ahead else "Starting."), ""
    return {
        RUNNING: ("Stopping." if job.stopping else "Running.", ""),
        DONE: ("Finished.", "good"),
        STOPPED: ("Stopped. Nothing was kept of this run.", ""),
        FAILED: (f"This run failed: {job.error}", "bad"),
    }[job.state]


def progress(job: Job, ahead: int) -> str:
    """A run's state, its bar and its previews."""
    line, kind = state_line(job, ahead)
    news: News | None = job.news
    if job.state != RUNNING or job.stopping or news is None:
        return note(line, kind)
    left = "" if news.left is None else f", about {news.left:.0f} s left"
    if news.done == 0:
        line = "Warming up, then the dense run."
    elif news.done == news.total:
        line = "Decoding and comparing."
    else:
        line = f"{news.label.capitalize()}: step {news.step} of {news.steps}{left}."
    bar = (
        f'<progress aria-label="steps done" max="{news.total}" value="{news.done}">'
        f"{news.done} of {news.total}</progress>"
    )
    strips = "".join(
        f'<figure><figcaption>{label}</figcaption><img src="{jpeg(strip)}" '
        f'alt="Preview of the {label} frames so far"></figure>'
        for label, strip in news.strips.items()
    )
    colours = "" if news.coloured else " Its colours become known with the first finished video."
    about = (
        '<p class="aj-small">The frames that the last step headed for: a linear reading of the '
        f"latents, nothing decoded.{colours}</p>"
        if strips
        else ""
    )
    return f'{note(line)}{bar}<div class="aj-strips">{strips}</div>{about}'


def cards(report: Mapping[str, Any]) -> str:
    """The figures of a run."""
    sparse, steps = report["sparse_steps"], report["steps"]
    boxes = [
        (f"{report['dense_seconds']:.1f} s", "dense"),
        (f"{report['sparse_seconds']:.1f} s", f"sparse, {sparse} of {steps} steps"),
        (f"{report['speedup']:.2f}x", "speed-up of denoising"),
        (f"{report['density']:.2f}", f"density; {report['mean_density']:.2f} over all steps"),
        (f"{report['psnr_db']:.1f} dB", "PSNR against dense"),
        (f"{report['ssim']:.3f}", "SSIM"),
    ]
    shares = report["attention_share"]
    if shares.get("dense") is not None:
        boxes.append((f"{100 * shares['dense']:.0f} %", "of dense time is self-attention"))
    if shares.get("sparse") is not None:
        boxes.append((f"{100 * shares['sparse']:.0f} %", "of sparse time is self-attention"))
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for value, name in boxes)
    frames, height, width = report["size"]
    where = (
        f"{frames} frames of {width} x {height}, grid {report['grid']}, seed {report['seed']}, "
        f"backend {report['backend']} on {report['device']}. Seconds are of denoising, without "
        "text and decoding. The share of self-attention, projections included, was measured in "
        "this run."
    )
    if report["speedup"] < 1:
        where += " At this size there is too little attention to gain from; try a larger one."
    dense = "".join(note(f"Ran dense: {reason}", "bad") for reason in report["fallbacks"])
    return f'<dl class="aj-cards">{items}</dl>{dense}<p class="aj-small">{html.escape(where)}</p>'


def comparison(result: Result, title: str) -> str:
    """The videos of a run for `<ajour-compare>`, with links that work without it."""
    report = result.report
    frames, height, width = report["size"]
    facts = {
        "src": url(result.folder / "views.mp4"),
        "frames": frames,
        "fps": report["fps"],
        "width": width,
        "height": height,
        "names": [
            f"Dense, {report['dense_seconds']:.1f} s",
            f"Sparse, {report['sparse_seconds']:.1f} s",
            f"Difference, {AMPLIFIED} times as strong",
        ],
        "psnr": report["psnr_db_each"],
        "ssim": report["ssim_each"],
    }
    links = "".join(
        f'<a href="{url(result.folder / name)}" download="{name}">{name}</a>'
        for name in ("dense.mp4", "sparse.mp4", "report.json", "plan.json")
    )
    return (
        f'<h3 class="aj-title">{html.escape(title)}</h3>'
        f'<p class="aj-prompt">{html.escape(report["prompt"])}</p>'
        f"<ajour-compare data-facts='{html.escape(json.dumps(facts), quote=True)}'></ajour-compare>"
        f'<p class="aj-small">Download: {links}</p>'
    )


def jpeg(picture: NDArray[np.uint8]) -> str:
    """A picture (h,w,3) as data for `<img>`."""
    import cv2

    pixels = np.ascontiguousarray(picture[..., ::-1])
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def png(picture: NDArray[np.uint8]) -> str:
    """A picture (h,w,3) as data for `<img>`, without loss."""
    import cv2

    _, data = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()
