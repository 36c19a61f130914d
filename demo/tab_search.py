"""The Search tab: a small search with a time limit, and its frontier while it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from ajour.demo.charts import Series, chart
from ajour.demo.render import cards, note, render
from ajour.demo.request import MOST_STEPS, Request
from ajour.demo.searching import search
from ajour.demo.tab_generate import about_shown, size_choice
from ajour.demo.tabs import QUICK, JobButtons
from ajour.demo.views import bar
from ajour.search.settings import Target

if TYPE_CHECKING:
    from markupsafe import Markup

    from ajour.demo.device import Job
    from ajour.demo.searching import SearchProgress, SearchResult
    from ajour.demo.server import Site
    from ajour.demo.tabs import Updates

MOST_MINUTES = 30
KINDS = {
    "speedup": ("Speed-up", 1.3), "psnr": ("PSNR, dB", 28), "density": ("Density, all steps", 0.4)
}  # fmt: skip
"""Targets by kind: label and first value."""

START = note("A search takes a few minutes at the smallest size. Its plan can be used at once.")


@dataclass(frozen=True)
class SearchTab:
    """The components of this tab that the page uses."""

    fields: list[Any]
    start: gr.Button
    stop: gr.Button
    use: gr.Button
    look: gr.Button
    status: gr.HTML
    frontier: gr.HTML


def build(site: Site) -> SearchTab:
    """Lay the tab out, within a `gr.Tab`."""
    with gr.Row(elem_classes="aj-columns"):
        with gr.Column(scale=2, min_width=300):
            choices = [(name, key) for key, (name, _) in KINDS.items()]
            kind = gr.Radio(choices, value="density", label="Target")
            value = gr.Number(KINDS["density"][1], label="Value", elem_id="target")
            minutes = gr.Slider(
                0.5, MOST_MINUTES, 5, step=0.5, label="Time limit, minutes", elem_id="minutes"
            )
            size = size_choice(site)
            steps = gr.Slider(4, MOST_STEPS, min(site.model.steps, 8), step=1, label="Steps")
            gr.HTML(render("search_about"))
            with gr.Row():
                start = gr.Button("Search", variant="primary", elem_id="search", min_width=140)
                stop = gr.Button("Stop", interactive=False, elem_id="stop-search", min_width=100)
        with gr.Column(scale=3, min_width=320):
            status = gr.HTML(START, elem_id="search-status", elem_classes="aj-live")
            frontier = gr.HTML(elem_id="frontier")
            with gr.Row():
                use = gr.Button(
                    "Use it in Generate", interactive=False, elem_id="use-plan", min_width=140
                )
                look = gr.Button(
                    "Look at it in Plan", interactive=False, elem_id="look-plan", min_width=140
                )
    kind.input(lambda key: KINDS.get(key, ("", 1.0))[1], kind, value, **QUICK)
    return SearchTab([kind, value, minutes, size, steps], start, stop, use, look, status, frontier)


def wire(site: Site, tab: SearchTab, shown: gr.State, form: list[Any], shown_line: gr.HTML) -> Any:
    """Connect the buttons.

    Args:
        site: the server.
        tab: from `build`.
        shown: the plan that is shown, which a search replaces.
        form: fields of the Generate tab.
        shown_line: its line on the plan that is shown.

    Returns:
        The event of a search that has ended.
    """

    def submit(*values: Any) -> Any:
        kind, value, minutes, size, steps, prompt, seed, *_, guidance = values
        target, limit = checked_target(kind, value), checked_limit(minutes)
        if size not in site.model.sizes:
            raise ValueError(f"unknown size {size!r}")
        request = Request.of(prompt, seed, steps, *site.model.sizes[size], guidance)
        return lambda pipe, job: search(pipe, job, target, request, site.model, limit), limit

    def show(job: Job) -> Updates:
        now = replace(job.progress, seconds=time.monotonic() - job.started)
        return {tab.status: search_progress(now), tab.frontier: frontier_chart(now)}

    def finish(result: SearchResult, *_: Any) -> Updates:
        return {
            tab.status: outcome(result),
            tab.frontier: frontier_chart(result.progress, result),
            tab.use: gr.Button(interactive=True),
            tab.look: gr.Button(interactive=True),
            shown: result.shown,
            shown_line: about_shown(result.shown),
        }

    return JobButtons(
        "search", tab.start, tab.stop, tab.status, [*tab.fields, *form],
        [tab.frontier, tab.use, tab.look, shown, shown_line],
        "Stopped, or out of time, before a plan was verified: try a longer time limit.",
    ).wire(site, submit, show, finish)  # fmt: skip


def checked_target(kind: Any, value: Any) -> Target:
    """A target from the form's fields.

    Raises:
        ValueError: if it is out of range.
    """
    if not isinstance(value, int | float):
        raise ValueError(f"the target's value must be a number, got {value!r}")
    return Target(str(kind), float(value))


def checked_limit(minutes: Any) -> float:
    """A time limit in seconds.

    Raises:
        ValueError: if it is out of range.
    """
    if not isinstance(minutes, int | float) or not 0 < minutes <= MOST_MINUTES:
        raise ValueError(f"the time limit must be over 0 and up to {MOST_MINUTES} minutes")
    return 60.0 * minutes


def search_progress(now: SearchProgress) -> Markup:
    """How far a search is."""
    text = (
        f"{now.stage}: {now.units} units of work done, {len(now.verified)} plans verified, "
        f"{now.seconds:.0f} of at most {now.limit:.0f} s."
    )
    return bar(text, "seconds", round(min(now.seconds, now.limit)), round(now.limit))


def outcome(result: SearchResult) -> Markup:
    """The end of a search in words and figures."""
    boxes = [(f"{result.speedup:.2f}x", "speed-up, measured"), (f"{result.psnr_db:.1f} dB", "PSNR")]
    if result.density is not None:
        boxes.append((f"{result.density:.2f}", "density of all steps"))
    if result.density is not None and result.density > 0.999:
        text = "No sparse plan was faster than dense attention at this size; try a larger size."
        kind = "bad"
    elif result.met:
        text, kind = f"The target of {result.target} is met.", "good"
    else:
        text, kind = f"The target of {result.target} is missed; this is the nearest plan.", "bad"
    if not result.complete:
        text = f"Ended early, with the best plan verified so far. {text}"
    return note(text, kind) + cards(boxes)


def frontier_chart(now: SearchProgress, result: SearchResult | None = None) -> Markup:
    """The predicted frontier as a line, verified plans as dots, the chosen plan as a diamond."""
    chosen = [] if result is None else [(result.speedup, result.psnr_db)]
    verified = [point for point in now.verified if point not in chosen]
    series = [Series("predicted frontier", now.frontier, "line")]
    for name, points, kind in (("verified", verified, "dots"), ("chosen", chosen, "stars")):
        labels = [f"{speedup:.2f}x, {psnr:.1f} dB" for speedup, psnr in points]
        series.append(Series(name, points, kind, labels))
    title = f"Speed-up against PSNR: {len(now.verified)} plans verified"
    return chart(title, "speed-up of denoising", "PSNR, dB", series)
