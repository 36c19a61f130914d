"""The report of a search: one HTML file with everything in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from ajour.lowering import density
from ajour.pipelines.drawing import (
    KIND_COLOURS,
    head_map,
    key_pixels,
    level_pixels,
    pattern_view,
    spans,
    spread,
)
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
    from ajour.patterns import Pattern
    from ajour.plan import Plan
    from ajour.search.results import Outcome

    Video = Callable[[str, int], NDArray[np.uint8] | None]

SHEET_FRAMES, SHEET_WIDTH = 5, 192
"""Frames of a contact sheet, and the width of each in pixels."""


@dataclass(frozen=True)
class UsedPattern:
    """A pattern of the plan, as shown.

    Attributes:
        name: in the plan.
        pattern: the pattern.
        heads: how many heads of all assignments use it.
        density: on the grid.
        images: addresses of its pictures; none if it is captured.
    """

    name: str
    pattern: Pattern
    heads: int
    density: float
    images: tuple[str, ...]


@dataclass(frozen=True)
class Sheet:
    """Frames of a prompt's videos.

    Attributes:
        prompt: the prompt.
        psnr_db: of the chosen plan's video.
        images: addresses of the contact sheets, dense first.
    """

    prompt: str
    psnr_db: float
    images: tuple[str, ...]


def write_report(outcome: Outcome, video: Video, path: Path, command: str) -> None:
    """Write the report.

    Args:
        outcome: of the search.
        video: gives the video of a plan's key (or `dense`) and the index of a prompt, or None.
        path: the HTML file.
        command: the command line that repeats the search.
    """
    plan = outcome.plan
    page = templates("ajour.search.report").get_template("page.html")
    values: dict[str, Any] = {
        "outcome": outcome,
        "command": command,
        "frontier_figure": Markup(frontier_figure(outcome)),
        "error_figure": Markup(error_figure(outcome)),
        "time_figure": Markup(time_figure(outcome.costs)),
        "spans": spans(plan.schedule),
        "kinds": dict.fromkeys(pattern.kind for pattern in plan.patterns.values()),
        "colours": KIND_COLOURS,
        "maps": {name: head_map(plan, name) for name in plan.assignments},
        "cell": max(4, min(16, 480 // plan.model["layers"])),
        "patterns": list(_used_patterns(plan, outcome.grid)),
        "sheets": list(_sheets(outcome, video)),
        "ink": INK,
        "good": GREEN,
        "bad": RED,
    }
    path.write_text(page.render(values) + "\n", encoding="utf-8")


def _used_patterns(plan: Plan, grid: TokenGrid) -> Iterator[UsedPattern]:
    """The patterns of a plan, those of most heads first."""
    rows = (row for layers in plan.assignments.values() for row in layers)
    for name, heads in Counter(name for row in rows for name in row).most_common():
        pattern = plan.patterns[name]
        view = pattern_view(pattern, grid)
        pixels = [] if view is None else [level_pixels(view.blocks), key_pixels(view)]
        images = tuple(map(image_url, pixels))
        yield UsedPattern(name, pattern, heads, density(pattern, grid), images)


def _sheets(outcome: Outcome, video: Video) -> Iterator[Sheet]:
    """The contact sheets of every verification prompt."""
    psnr_each = outcome.chosen.quality.psnr_db_each
    for index, prompt in enumerate(outcome.settings.verification):
        videos = [video(key, index) for key in (DENSE, outcome.chosen.key)]
        images = tuple(contact_sheet(frames) for frames in videos if frames is not None)
        yield Sheet(prompt, psnr_each[index], images)


def contact_sheet(video: NDArray[np.uint8]) -> str:
    """Address of a JPEG with a few frames of a video, (F,H,W,3), side by side."""
    import cv2

    size = (SHEET_WIDTH, round(SHEET_WIDTH * video.shape[1] / video.shape[2]))
    frames = [
        cv2.resize(video[index], size, interpolation=cv2.INTER_AREA)
        for index in spread(len(video), SHEET_FRAMES)
    ]
    return image_url(np.concatenate(frames, axis=1), "jpeg")
