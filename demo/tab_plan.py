"""The Plan tab: who does what, and one head in detail."""

from __future__ import annotations

from collections.abc import Iterator  # noqa: TC003 - gradio reads annotations at run time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from ajour.demo import heads, pieces
from ajour.demo.device import DONE, RUNNING, Refused
from ajour.demo.heads import Shown  # noqa: TC001 - gradio reads annotations at run time
from ajour.demo.measure import measure
from ajour.demo.request import Request
from ajour.demo.server import download, snippet
from ajour.demo.tab_generate import owner_of, quick, stop_run

if TYPE_CHECKING:
    from ajour.demo.server import Site

EMPTY = '<p class="aj-note">No plan yet: upload one, or generate with an automatic one.</p>'
NO_HEAD = '<p class="aj-note">Choose a head to see its pattern.</p>'
LISTEN = "element.addEventListener('ajour-head', (event) => trigger('choose', event.detail));"


@dataclass(frozen=True)
class PlanTab:
    """What other tabs and the page need of this one."""

    upload: gr.UploadButton
    note: gr.HTML
    views: list[Any]
    colour: gr.Radio
    assignment: gr.Dropdown
    map: gr.HTML
    detail: gr.HTML
    measure: gr.Button
    stop: gr.Button


def build(site: Site) -> PlanTab:
    """Lay the tab out, within a `gr.Tab`."""
    first = site.first_plan()
    about, strip, cells, link, code, choices, name = _views(site, first, "kind")
    with gr.Row(elem_classes="aj-columns"):
        with gr.Column(scale=3, min_width=320):
            facts = gr.HTML(about)
            schedule = gr.HTML(strip, elem_id="schedule")
            with gr.Row():
                colour = gr.Radio(list(heads.COLOURS), value="kind", label="Colour by")
                assignment = gr.Dropdown(
                    choices, value=name, label="Assignment", visible=len(choices) > 1
                )
            # A click on a head, or Enter on it, comes as the event `choose`.
            cell_map = gr.HTML(cells, js_on_load=LISTEN, elem_id="heads")
        with gr.Column(scale=2, min_width=300):
            detail = gr.HTML(NO_HEAD, elem_id="head", elem_classes="aj-live")
            with gr.Row():
                measure_button = gr.Button(
                    "Measure errors", size="sm", elem_id="measure", min_width=140
                )
                stop = gr.Button("Stop", size="sm", interactive=False, min_width=80)
            note = gr.HTML(elem_classes="aj-live", elem_id="plan-note")
            save = gr.HTML(link, elem_id="download")
            upload = gr.UploadButton(
                "Upload a plan", file_types=[".json"], size="sm", elem_id="upload-plan"
            )
            python = gr.Code(
                code, language="python", label="Run it in Python", interactive=False,
                elem_id="snippet", buttons=["copy"],
            )  # fmt: skip
    views = [facts, schedule, cell_map, save, python, assignment, detail]
    return PlanTab(upload, note, views, colour, assignment, cell_map, detail, measure_button, stop)


def wire(site: Site, tab: PlanTab, shown: gr.State, form: list[Any]) -> Any:
    """Connect the controls.

    Args:
        site: the server.
        tab: what `build` gave.
        shown: the plan that is shown.
        form: fields of the Generate tab, whose prompt and size errors are measured on.

    Returns:
        What shows the plan anew, to follow events that change it.
    """

    def refresh(plan: Shown | None, colour: str) -> list[Any]:
        about, strip, cells, link, code, choices, name = _views(site, plan, colour)
        dropdown = gr.Dropdown(choices, value=name, visible=len(choices) > 1)
        return [about, strip, cells, link, code, dropdown, NO_HEAD]

    def recolour(plan: Shown | None, assignment: str | None, colour: str) -> str:
        return _map(plan, assignment, colour)

    def look(plan: Shown | None, assignment: str | None, event: gr.EventData) -> str:
        try:
            if plan is None or assignment is None:
                raise ValueError("there is no plan to look at")
            return heads.detail(plan, assignment, int(event.layer), int(event.head))
        except (AttributeError, TypeError, ValueError) as error:
            return pieces.note(str(error), "bad")

    def measured(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        *fields, plan, colour, assignment = values
        try:
            if plan is None:
                raise ValueError("there is no plan to measure")
            asked = Request.of(*fields)
            job = site.device.submit(
                owner_of(request, "measure"),
                lambda pipe, job: measure(pipe, job, plan, asked, site.model),
            )
        except (Refused, ValueError) as error:
            yield {tab.note: pieces.note(str(error), "bad")}
            return
        yield {tab.measure: gr.Button(interactive=False), tab.stop: gr.Button(interactive=True)}
        try:
            for now in job.watch():
                line, kind = pieces.state_line(now, site.device.ahead(now))
                if now.state == RUNNING and now.news and not now.stopping:
                    line = "Measuring: step {} of {}.".format(*now.news)
                yield {tab.note: pieces.note(line, kind)}
        finally:
            job.stop()
        last: dict[Any, Any] = {
            tab.measure: gr.Button(interactive=True), tab.stop: gr.Button(interactive=False),
        }  # fmt: skip
        if job.state == DONE:
            text = "Measured. Choose a head, or colour the map by error."
            last |= {
                shown: job.result,
                tab.map: _map(job.result, assignment, colour),
                tab.note: pieces.note(text, "good"),
            }
        yield last

    def stop(request: gr.Request) -> Any:
        return stop_run(site, owner_of(request, "measure"))

    tab.map.choose(look, [shown, tab.assignment], tab.detail, **quick())
    for control in (tab.colour, tab.assignment):
        control.input(recolour, [shown, tab.assignment, tab.colour], tab.map, **quick())
    tab.stop.click(stop, None, tab.note, **quick())
    tab.measure.click(
        measured,
        [*form, shown, tab.colour, tab.assignment],
        [tab.note, tab.measure, tab.stop, tab.map, shown],
        show_progress="hidden",
        concurrency_limit=16,
        concurrency_id="runs",
        api_visibility="private",
    )

    def follow(event: Any) -> Any:
        return event.then(refresh, [shown, tab.colour], tab.views, **quick())

    return follow


def _views(site: Site, shown: Shown | None, colour: str) -> tuple[Any, ...]:
    """Facts, schedule, map, download, snippet, and the assignments and the first of them."""
    if shown is None:
        return EMPTY, "", "", "", "", [], None
    name = heads.usual_assignment(shown.plan)
    return (
        heads.facts(shown),
        heads.schedule(shown.plan),
        _map(shown, name, colour),
        download(shown.plan),
        snippet(site.model, site.device.pipe),
        list(shown.plan.assignments),
        name,
    )


def _map(shown: Shown | None, assignment: str | None, colour: str) -> str:
    if shown is None:
        return ""
    if assignment not in shown.plan.assignments or colour not in heads.COLOURS:
        return '<p class="aj-note">This plan is dense throughout.</p>'
    return heads.head_map(shown, assignment, colour)
