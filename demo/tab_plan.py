"""The Plan tab: which head uses which pattern, and one head in detail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from ajour.demo import heads
from ajour.demo.errors import measure
from ajour.demo.heads import ShownPlan  # noqa: TC001 - gradio reads annotations at run time
from ajour.demo.render import note
from ajour.demo.request import Request
from ajour.demo.server import download, snippet
from ajour.demo.tabs import QUICK, JobButtons
from ajour.demo.views import bar

if TYPE_CHECKING:
    from ajour.demo.device import Job
    from ajour.demo.server import Site
    from ajour.demo.tabs import Updates

EMPTY = note("No plan yet: upload a plan, or generate with an automatic plan.")
NO_HEAD = note("Select a head to see its pattern.")
LISTEN = "element.addEventListener('ajour-head', (event) => trigger('choose', event.detail));"


@dataclass(frozen=True)
class PlanTab:
    """The components of this tab that the page and other tabs use."""

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
    about, strip, cells, link, code, choices, name = _views(site, site.first_plan(), "kind")
    with gr.Row(elem_classes="aj-columns"):
        with gr.Column(scale=3, min_width=320):
            facts = gr.HTML(about)
            schedule = gr.HTML(strip, elem_id="schedule")
            with gr.Row():
                colour = gr.Radio(list(heads.COLOURS), value="kind", label="Colour")
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
            status = gr.HTML(elem_classes="aj-live", elem_id="plan-note")
            save = gr.HTML(link, elem_id="download")
            upload = gr.UploadButton(
                "Upload a plan", file_types=[".json"], size="sm", elem_id="upload-plan"
            )
            python = gr.Code(
                code, language="python", label="Run it in Python", interactive=False,
                elem_id="snippet", buttons=["copy"],
            )  # fmt: skip
    views = [facts, schedule, cell_map, save, python, assignment, detail]
    return PlanTab(
        upload, status, views, colour, assignment, cell_map, detail, measure_button, stop
    )


def wire(site: Site, tab: PlanTab, shown: gr.State, form: list[Any]) -> Any:
    """Connect the controls.

    Args:
        site: the server.
        tab: from `build`.
        shown: the plan that is shown.
        form: fields of the Generate tab: prompt and size of the run that errors are measured in.

    Returns:
        A function that shows the plan again after an event that changes it.
    """

    def refresh(plan: ShownPlan | None, colour: str) -> list[Any]:
        *views, choices, name = _views(site, plan, colour)
        return [*views, gr.Dropdown(choices, value=name, visible=len(choices) > 1), NO_HEAD]

    def recolour(plan: ShownPlan | None, assignment: str | None, colour: str) -> str:
        return heads.map_page(plan, assignment, colour)

    def look(plan: ShownPlan | None, assignment: str | None, event: gr.EventData) -> str:
        try:
            if plan is None or assignment is None:
                raise ValueError("there is no plan to look at")
            return heads.head_page(plan, assignment, int(event.layer), int(event.head))
        except (AttributeError, TypeError, ValueError) as error:
            return note(str(error), "bad")

    def submit(*values: Any) -> Any:
        *fields, plan, _, _ = values
        if plan is None:
            raise ValueError("there is no plan to measure")
        request = Request.of(*fields)
        return lambda pipe, job: measure(pipe, job, plan, request, site.model), None

    def show(job: Job) -> Updates:
        step, steps = job.progress
        return {tab.note: bar(f"Measuring: step {step} of {steps}.", "steps done", step, steps)}

    def finish(measured: ShownPlan, *values: Any) -> Updates:
        *_, colour, assignment = values
        return {
            shown: measured,
            tab.map: heads.map_page(measured, assignment, colour),
            tab.note: note("Measured. Select a head, or colour the map by error.", "good"),
        }

    tab.map.choose(look, [shown, tab.assignment], tab.detail, **QUICK)
    for control in (tab.colour, tab.assignment):
        control.input(recolour, [shown, tab.assignment, tab.colour], tab.map, **QUICK)
    JobButtons(
        "measure", tab.measure, tab.stop, tab.note, [*form, shown, tab.colour, tab.assignment],
        [tab.map, shown],
    ).wire(site, submit, show, finish)  # fmt: skip
    return lambda event: event.then(refresh, [shown, tab.colour], tab.views, **QUICK)


def _views(site: Site, shown: ShownPlan | None, colour: str) -> tuple[Any, ...]:
    """Facts, schedule, map, download, snippet, the assignments and the selected assignment."""
    if shown is None:
        return EMPTY, "", "", "", "", [], None
    name = heads.first_assignment(shown.plan)
    return (
        heads.about_page(shown),
        heads.schedule_page(shown.plan),
        heads.map_page(shown, name, colour),
        download(shown.plan),
        snippet(site.model, site.device.pipe),
        list(shown.plan.assignments),
        name,
    )
