"""The report of a search: one HTML file with everything in it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from ajour.files import write_text
from ajour.lowering import density
from ajour.pipelines.drawing import (
    KIND_COLOURS,
    head_map,
    in_words,
    key_pixels,
    level_pixels,
    pattern_view,
    spans,
    spread,
)
from ajour.pipelines.measures import MEASURES
from ajour.pipelines.pages import image_url, templates
from ajour.schedule import DENSE
from ajour.search.report.figures import (
    GREEN,
    INK,
    RED,
    error_figure,
    frontier_figure,
    time_figure,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.plan import Plan
    from ajour.search.results import Outcome

    Video = Callable[[str, int], NDArray[np.uint8] | None]

SHEET_FRAMES, SHEET_WIDTH = 5, 192
"""Frames of a contact sheet, and the width of each in pixels."""


def write_report(outcome: Outcome, video: Video, path: Path, command: str) -> None:
    """Write the report as an HTML file.

    `video` gives the video of a plan's key (or `dense`) and the index of a prompt, or None. The
    command line `command` repeats the search.
    """
    plan = outcome.plan
    page = templates("ajour.search.report").get_template("page.html")
    values: dict[str, Any] = {
        "outcome": outcome,
        "measures": MEASURES,
        "command": command,
        "frontier_figure": Markup(frontier_figure(outcome)),
        "error_figure": Markup(error_figure(outcome)),
        "time_figure": Markup(time_figure(outcome.costs)),
        "spans": spans(plan.schedule),
        "schedule": in_words(spans(plan.schedule)),
        "kinds": dict.fromkeys(pattern.kind for pattern in plan.patterns.values()),
        "colours": KIND_COLOURS,
        "maps": {name: head_map(plan, name) for name in plan.assignments},
        "cell": max(4, min(16, 480 // plan.model["layers"])),
        "patterns": list(_used_patterns(plan, outcome.grid)),
        "density": lambda name: density(plan.patterns[name], outcome.grid),
        "sheets": list(_sheets(outcome, video)),
        "ink": INK,
        "good": GREEN,
        "bad": RED,
    }
    write_text(path, page.render(values) + "\n")


def _used_patterns(plan: Plan, grid: TokenGrid) -> Iterator[tuple[str, int, list[str]]]:
    """Name, number of heads and pictures of a plan's patterns, those of most heads first."""
    rows = (row for layers in plan.assignments.values() for row in layers)
    for name, heads in Counter(name for row in rows for name in row).most_common():
        view = pattern_view(plan.patterns[name], grid)
        pixels = [] if view is None else [level_pixels(view.blocks), key_pixels(view)]
        yield name, heads, [image_url(picture) for picture in pixels]


def _sheets(outcome: Outcome, video: Video) -> Iterator[tuple[str, float, list[str]]]:
    """Prompt, PSNR and contact sheets, dense first, of every verification prompt."""
    prompts = zip(outcome.settings.verification, outcome.chosen.quality.psnr_db_each, strict=True)
    for index, (prompt, psnr_db) in enumerate(prompts):
        videos = [video(key, index) for key in (DENSE, outcome.chosen.key)]
        yield prompt, psnr_db, [contact_sheet(frames) for frames in videos if frames is not None]


def contact_sheet(video: NDArray[np.uint8]) -> str:
    """Address of a JPEG with a few frames of a video, (F,H,W,3), side by side."""
    import cv2

    size = (SHEET_WIDTH, round(SHEET_WIDTH * video.shape[1] / video.shape[2]))
    frames = [
        cv2.resize(video[index], size, interpolation=cv2.INTER_AREA)
        for index in spread(len(video), SHEET_FRAMES)
    ]
    return image_url(np.concatenate(frames, axis=1), "jpeg")
