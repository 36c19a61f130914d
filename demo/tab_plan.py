"""The Plan tab: which head uses which pattern, and one head in detail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from ajour.demo import heads
from ajour.demo.errors import measure
from ajour.demo.heads import ShownPlan  # noqa: TC001 - gradio reads annotations at run time
from ajour.demo.render import note, render
from ajour.demo.request import Request
from ajour.demo.server import download, snippet
from ajour.demo.tabs import DRAWING, JobButtons
from ajour.demo.uploading import upload_button

if TYPE_CHECKING:
    from ajour.demo.device import Job
    from ajour.demo.server import Site
    from ajour.demo.tabs import Updates

EMPTY = note("No plan yet: upload a plan, or generate with an automatic plan.")
NO_HEAD = note("Select a head to see its pattern.")
LISTEN = "element.addEventListener('ajour-head', (event) => trigger('choose', event.detail));"


class PlanTab:
    """Lays the tab out, within a `gr.Tab`.

    Attributes:
        upload: uploads a plan.
        note: the line on an upload or a measurement.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        about, strip, cells, link, code, choices, name = self._views(site.first_plan(), "kind")
        with gr.Row(elem_classes="aj-columns"):
            with gr.Column(scale=3, min_width=320):
                facts = gr.HTML(about)
                schedule = gr.HTML(strip, elem_id="schedule")
                with gr.Row():
                    self.colour = gr.Radio(list(heads.COLOURS), value="kind", label="Colour")
                    self.assignment = gr.Dropdown(
                        choices, value=name, label="Assignment", visible=len(choices) > 1
                    )
                # A click on a head, or Enter on it, comes as the event `choose`.
                self.map = gr.HTML(cells, js_on_load=LISTEN, elem_id="heads")
            with gr.Column(scale=2, min_width=300):
                self.detail = gr.HTML(NO_HEAD, elem_id="head", elem_classes="aj-live")
                self.buttons = JobButtons("measure", "Measure errors", small=True)
                self.note = gr.HTML(elem_classes="aj-live", elem_id="plan-note")
                save = gr.HTML(link, elem_id="download")
                self.upload = upload_button("upload-plan")
                python = gr.Code(
                    code, language="python", label="Run it in Python", interactive=False,
                    elem_id="snippet", buttons=["copy"],
                )  # fmt: skip
        self._outputs = [facts, schedule, self.map, save, python, self.assignment, self.detail]

    def wire(self, shown: gr.State, form: list[Any]) -> None:
        """Connect the controls.

        Args:
            shown: the plan that is shown.
            form: fields of the Generate tab: prompt and size of the run that errors are measured
                in.
        """
        view = [shown, self.assignment, self.colour]

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
            return lambda pipe, job: measure(pipe, job, plan, request, self.site.model), None

        def show(job: Job) -> Updates:
            step, steps = job.progress
            text = f"Measuring: step {step} of {steps}."
            page = render("progress", text=text, label="steps done", value=step, most=steps)
            return {self.note: page}

        def finish(measured: ShownPlan, *values: Any) -> Updates:
            *_, assignment, colour = values
            return {
                shown: measured,
                self.map: heads.map_page(measured, assignment, colour),
                self.note: note("Measured. Select a head, or colour the map by error.", "good"),
            }

        self.map.choose(look, [shown, self.assignment], self.detail, **DRAWING)
        for control in (self.colour, self.assignment):
            control.input(heads.map_page, view, self.map, **DRAWING)
        self.buttons.wire(
            self.site, self.note, [*form, *view], [self.map, shown], submit, show, finish
        )

    def refresh_after(self, event: Any, shown: gr.State) -> None:
        """Show the plan again after an event that changes it."""

        def refresh(plan: ShownPlan | None, colour: str) -> list[Any]:
            *views, choices, name = self._views(plan, colour)
            return [*views, gr.Dropdown(choices, value=name, visible=len(choices) > 1), NO_HEAD]

        event.then(refresh, [shown, self.colour], self._outputs, **DRAWING)

    def _views(self, shown: ShownPlan | None, colour: str) -> tuple[Any, ...]:
        """Facts, schedule, map, download, snippet, the assignments and the selected assignment."""
        if shown is None:
            return EMPTY, "", "", "", "", [], None
        name = heads.first_assignment(shown.plan)
        return (
            render("about", shown=shown),
            heads.schedule_page(shown.plan),
            heads.map_page(shown, name, colour),
            download(shown.plan),
            snippet(self.site.model, self.site.device.pipe),
            heads.shown_assignments(shown.plan),
            name,
        )
