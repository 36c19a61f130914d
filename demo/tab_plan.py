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

Head = tuple[int, int]
"""Layer and head."""

if TYPE_CHECKING:
    from ajour.demo.device import Job
    from ajour.demo.server import Site
    from ajour.demo.tabs import Updates

EMPTY = note("No plan yet: upload a plan, or generate with an automatic plan.")
NO_HEAD = note("Select a head to see what it looks at.")
LISTEN = "element.addEventListener('ajour-head', (event) => trigger('choose', event.detail));"


class PlanTab:
    """Lays the tab out, within a `gr.Tab`.

    Attributes:
        upload: uploads a plan.
        note: the line on an upload or a measurement.
        outputs: the components that `updates` gives the values of.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        about, strip, cells, link, code, choices, detail, _ = self._views(site.first_plan, "kind")
        with gr.Row(elem_classes="aj-columns"):
            with gr.Column(scale=3, min_width=320):
                facts = gr.HTML(about)
                self.schedule = gr.HTML(strip, elem_id="schedule")
                with gr.Row():
                    self.colour = gr.Radio(
                        list(heads.COLOURS), value="kind", label="Colour", elem_id="colour"
                    )
                    self.assignment = gr.Dropdown(
                        choices["choices"], value=choices["value"], label="Phase",
                        visible=choices["visible"], elem_id="phase",
                    )  # fmt: skip
                # A click on a head, or Enter on it, comes as the event `choose`.
                self.map = gr.HTML(cells, js_on_load=LISTEN, elem_id="heads")
            with gr.Column(scale=2, min_width=300):
                self.detail = gr.HTML(detail, elem_id="head", elem_classes="aj-live")
                self.buttons = JobButtons("measure", "Measure errors", small=True)
                self.note = gr.HTML(elem_classes="aj-live", elem_id="plan-note")
                save = gr.HTML(link, elem_id="download")
                self.upload = upload_button("upload-plan")
                python = gr.Code(
                    code, language="python", label="Run it in Python", interactive=False,
                    elem_id="snippet", buttons=["copy"],
                )  # fmt: skip
        self._head = gr.State()
        self.outputs = [
            facts, self.schedule, self.map, save, python, self.assignment, self.detail, self._head,
        ]  # fmt: skip

    def wire(self, shown: gr.State, form: list[Any]) -> None:
        """Connect the controls.

        Args:
            shown: the plan that is shown.
            form: fields of the Generate tab: prompt and size of the run that errors are measured
                in.
        """
        view = [shown, self.assignment, self.colour, self._head]

        def look(
            plan: ShownPlan | None, assignment: str | None, event: gr.EventData
        ) -> tuple[str, Head | None]:
            try:
                if plan is None or assignment is None:
                    raise ValueError("there is no plan to look at")
                head = int(event.layer), int(event.head)
                return heads.head_page(plan, assignment, *head), head
            except (AttributeError, TypeError, ValueError) as error:
                return note(str(error), "bad"), None

        def phase(
            plan: ShownPlan | None, assignment: str | None, colour: str, head: Head | None
        ) -> tuple[str, str, str]:
            if plan is None or assignment not in heads.shown_assignments(plan.plan):
                return "", "", NO_HEAD
            return (
                heads.schedule_page(plan.plan, assignment),
                heads.map_page(plan, assignment, colour, head),
                NO_HEAD if head is None else heads.head_page(plan, assignment, *head),
            )

        def submit(*values: Any) -> Any:
            *fields, plan = values
            if plan is None:
                raise ValueError("there is no plan to measure")
            request = Request.of(*fields)
            return lambda pipe, job: measure(pipe, job, plan, request, self.site.model), None

        def show(job: Job) -> Updates:
            step, steps = job.progress
            text = f"Measuring: step {step} of {steps}."
            page = render("progress", text=text, label="steps done", value=step, most=steps)
            return {self.note: page}

        def finish(measured: ShownPlan, *_: Any) -> Updates:
            text = "Measured. The map is coloured by error now; select a head for its figure."
            return {shown: measured, self.colour: "error", self.note: note(text, "good")}

        redrawn = [self.schedule, self.map, self.detail]
        self.map.choose(look, [shown, self.assignment], [self.detail, self._head], **DRAWING)
        self.colour.input(heads.map_page, view, self.map, **DRAWING)
        self.assignment.input(phase, view, redrawn, **DRAWING)
        # The phase may have been changed while errors were measured: drawn as it is chosen then.
        self.buttons.wire(
            self.site, self.note, [*form, shown], [self.colour, shown], submit, show, finish
        ).then(phase, view, redrawn, **DRAWING)

    def refresh_after(self, event: Any, shown: gr.State) -> None:
        """Show the plan again after an event that changes it."""
        event.then(self.updates, [shown, self.colour], self.outputs, **DRAWING)

    def updates(self, shown: ShownPlan | None, colour: str) -> dict[Any, Any]:
        """The values of the tab's outputs for a plan."""
        *pages, choices, detail, head = self._views(shown, colour)
        values = [*pages, gr.Dropdown(**choices), detail, head]
        return dict(zip(self.outputs, values, strict=True))

    def _views(self, shown: ShownPlan | None, colour: str) -> tuple[Any, ...]:
        """Facts, schedule, map, download, snippet, the choice of a phase, a head in detail."""
        if shown is None:
            nothing: dict[str, Any] = {"choices": [], "value": None, "visible": False}
            return EMPTY, "", "", "", "", nothing, NO_HEAD, None
        name, names = heads.first_assignment(shown.plan), heads.shown_assignments(shown.plan)
        return (
            render("about", shown=shown),
            heads.schedule_page(shown.plan, name),
            heads.map_page(shown, name, colour),
            download(shown.plan),
            snippet(self.site.model, self.site.device.pipe),
            {"choices": names, "value": name, "visible": len(names) > 1},
            NO_HEAD,
            None,
        )
