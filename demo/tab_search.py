"""The Search tab: a small search with a time limit, and its frontier while it runs."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from ajour.demo.charts import frontier_chart
from ajour.demo.render import note, render
from ajour.demo.request import BOUNDS, Request
from ajour.demo.searching import search
from ajour.demo.tab_generate import about_shown, size_choice
from ajour.demo.tabs import QUICK, JobButtons
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

AFTER: dict[str, Any] = {"interactive": False, "min_width": 140}
"""Options of the buttons for the plan of a search."""

START = note("A search takes a few minutes at the smallest size. Its plan can be used at once.")


class SearchTab:
    """Lays the tab out, within a `gr.Tab`.

    Attributes:
        use: uses the plan of the search in the Generate tab.
        look: shows it in the Plan tab.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        with gr.Row(elem_classes="aj-columns"):
            with gr.Column(scale=2, min_width=300):
                choices = [(name, key) for key, (name, _) in KINDS.items()]
                kind = gr.Radio(choices, value="density", label="Target")
                value = gr.Number(KINDS["density"][1], label="Value", elem_id="target")
                minutes = gr.Slider(
                    0.5, MOST_MINUTES, 5, step=0.5, label="Time limit, minutes", elem_id="minutes"
                )
                size = size_choice(site)
                usual = min(site.model.steps, 8)
                steps = gr.Slider(4, BOUNDS["steps"][1], usual, step=1, label="Steps")
                gr.HTML(render("search_about"))
                self.buttons = JobButtons("search", "Search")
            with gr.Column(scale=3, min_width=320):
                self.status = gr.HTML(START, elem_id="search-status", elem_classes="aj-live")
                self.frontier = gr.HTML(elem_id="frontier")
                with gr.Row():
                    self.use = gr.Button("Use it in Generate", **AFTER, elem_id="use-plan")
                    self.look = gr.Button("Look at it in Plan", **AFTER, elem_id="look-plan")
        self._fields = [kind, value, minutes, size, steps]
        kind.input(lambda key: KINDS.get(key, ("", 1.0))[1], kind, value, **QUICK)

    def wire(self, shown: gr.State, form: list[Any], shown_line: gr.HTML) -> Any:
        """Connect the buttons.

        Args:
            shown: the plan that is shown, which a search replaces.
            form: fields of the Generate tab.
            shown_line: its line on the plan that is shown.

        Returns:
            The event of a search that has ended.
        """
        model = self.site.model

        def submit(*values: Any) -> Any:
            kind, value, minutes, size, steps, prompt, seed, *_, guidance = values
            target, limit = checked_target(kind, value), checked_limit(minutes)
            if size not in model.sizes:
                raise ValueError(f"unknown size {size!r}")
            request = Request.of(prompt, seed, steps, *model.sizes[size], guidance)
            return lambda pipe, job: search(pipe, job, target, request, model, limit), limit

        def show(job: Job) -> Updates:
            now = replace(job.progress, seconds=time.monotonic() - job.started)
            return {self.status: search_progress(now), self.frontier: frontier(now)}

        def finish(result: SearchResult, *_: Any) -> Updates:
            return {
                self.status: render("outcome", result=result),
                self.frontier: frontier(result.progress, result),
                self.use: gr.Button(interactive=True),
                self.look: gr.Button(interactive=True),
                shown: result.shown,
                shown_line: about_shown(result.shown),
            }

        return self.buttons.wire(
            self.site, self.status, [*self._fields, *form],
            [self.frontier, self.use, self.look, shown, shown_line], submit, show, finish,
            "No plan was verified by then; after a time limit, try a longer limit.",
        )  # fmt: skip


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
    value, most = round(min(now.seconds, now.limit)), round(now.limit)
    return render("progress", text=text, label="seconds", value=value, most=most)


def frontier(now: SearchProgress, result: SearchResult | None = None) -> Markup:
    """The predicted frontier and the verified plans of a search."""
    chosen = [] if result is None else [(result.chosen.speedup, result.chosen.psnr_db)]
    others = [point for point in now.verified if point not in chosen]
    groups = {"verified": others, "chosen": chosen}
    plans = {name: [(name, *point) for point in points] for name, points in groups.items()}
    title = f"Speed-up against PSNR: {len(now.verified)} plans verified"
    return frontier_chart(title, now.frontier, plans)
