"""The Search tab: a small search with a time limit, and its frontier while it runs."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from ajour.demo.render import note, render
from ajour.demo.request import BOUNDS, Request
from ajour.demo.search_views import frontier, outcome, search_progress
from ajour.demo.searching import search
from ajour.demo.tab_generate import about_shown, size_choice
from ajour.demo.tabs import QUICK, JobButtons
from ajour.search.settings import Target

if TYPE_CHECKING:
    from ajour.demo.device import Job
    from ajour.demo.searching import SearchResult
    from ajour.demo.server import Site
    from ajour.demo.tabs import Updates

MOST_MINUTES = 30
KINDS = {
    "psnr": ("PSNR, dB", 30), "speedup": ("Speed-up", 1.5), "density": ("Density, all steps", 0.4)
}  # fmt: skip
"""Targets by kind: label and first value."""

MOST_USUAL_STEPS = 10
"""Denoising steps by default: a search makes many runs."""

START = note("Press Search for a plan of your own: at the smallest size it takes about a minute.")


class SearchTab:
    """Lays the tab out, within a `gr.Tab`.

    Attributes:
        use: uses the plan of the search in the Generate tab.
        look: shows it in the Plan tab.
        found: the last result of a search.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        with gr.Row(elem_classes="aj-columns aj-three"):
            with gr.Column(min_width=300):
                choices = [(name, key) for key, (name, _) in KINDS.items()]
                kind = gr.Radio(choices, value="psnr", label="Target")
                value = gr.Number(KINDS["psnr"][1], label="Value", elem_id="target")
                self.buttons = JobButtons("search", "Search")
            with gr.Column(min_width=320, elem_classes="aj-shown"):
                self.status = gr.HTML(START, elem_id="search-status", elem_classes="aj-live")
                with gr.Row(visible=False) as self.after:
                    self.use = gr.Button("Use it in Generate", min_width=140, elem_id="use-plan")
                    self.look = gr.Button("Look at it in Plan", min_width=140, elem_id="look-plan")
                self.frontier = gr.HTML(elem_id="frontier")
            with gr.Column(min_width=300):
                size = size_choice(site, next(iter(site.model.sizes)))
                usual = min(site.model.steps, MOST_USUAL_STEPS)
                steps = gr.Slider(4, BOUNDS["steps"][1], usual, step=1, label="Steps")
                minutes = gr.Slider(
                    0.5, MOST_MINUTES, 5, step=0.5, label="Time limit, minutes", elem_id="minutes"
                )
                gr.HTML(render("search_about"))
        self.found = gr.State()
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
            kind, value, minutes, size, steps, prompt, seed, *_, guidance, _ = values
            target, limit = checked_target(kind, value), checked_limit(minutes)
            if size not in model.sizes:
                raise ValueError(f"unknown size {size!r}")
            request = Request.of(prompt, seed, steps, *model.sizes[size], guidance)
            return lambda pipe, job: search(pipe, job, target, request, model, limit), limit

        def show(job: Job) -> Updates:
            now = replace(job.progress, seconds=time.monotonic() - job.started)
            return {self.status: search_progress(now), self.frontier: frontier(now)}

        def finish(result: SearchResult, *values: Any) -> Updates:
            made = self.site.completed(result.shown, values[-1])
            updates = {
                self.status: outcome(result),
                self.frontier: frontier(result.progress, result),
            }
            if result.dense:  # there is nothing to use or to look at
                return updates
            return updates | {
                self.after: gr.Row(visible=True),
                self.found: replace(result, shown=made),
                shown: made,
                shown_line: about_shown(made),
            }

        return self.buttons.wire(
            self.site, self.status, [*self._fields, *form, shown],
            [self.frontier, self.after, self.found, shown, shown_line], submit, show, finish,
            "No plan was verified by then. Choose a longer limit, a smaller size or fewer steps.",
            lambda: {self.after: gr.Row(visible=False), self.frontier: ""},
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
