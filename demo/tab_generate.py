"""The Generate tab: a form, live progress, and the comparison."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from ajour.demo.heads import ShownPlan
from ajour.demo.render import render
from ajour.demo.request import BOUNDS, MOST_WORDS, Request
from ajour.demo.tabs import QUICK, JobButtons
from ajour.demo.uploading import upload_button
from ajour.demo.views import NO_EXAMPLE, comparison, run_cards, run_progress
from ajour.pipelines.auto import SPEEDS, Auto
from ajour.pipelines.enable import resolve_plan
from ajour.pipelines.vocabulary import known_words

if TYPE_CHECKING:
    from markupsafe import Markup

    from ajour.demo.device import Job
    from ajour.demo.server import Site
    from ajour.demo.store import Result
    from ajour.demo.tabs import Updates
    from ajour.plan import Plan

AUTO, SHIPPED, SHOWN = "auto", "shipped", "shown"
OTHER_DENSITY = "other density"


class GenerateTab:
    """Lays the tab out, within a `gr.Tab`.

    Attributes:
        form: prompt, seed, steps, frames, height, width, guidance.
        preset: the choice among the model's sizes.
        kind: which plan to use.
        shown_line: the line on the plan in the Plan tab.
        upload: uploads a plan.
        note: the line on an upload.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        example = site.example
        # On a phone the three parts are below each other: a result comes before the long form.
        with gr.Row(elem_classes="aj-columns aj-three"):
            with gr.Column(min_width=300):
                prompt = gr.Textbox(
                    site.model.prompts[0], label="Prompt", lines=3, max_length=MOST_WORDS,
                    info=None if site.model.path else f"The bundled model knows {known_words()}",
                    elem_id="prompt",
                )  # fmt: skip
                self.buttons = JobButtons("generate", "Generate")
            with gr.Column(min_width=320, elem_classes="aj-shown"):
                self.status = gr.HTML(elem_id="status", elem_classes="aj-live")
                cards = run_cards(example.report, example=True) if example else ""
                self.cards = gr.HTML(cards, elem_id="cards", elem_classes="aj-live")
                videos = comparison(example, "Stored example") if example else NO_EXAMPLE
                self.comparison = gr.HTML(videos, elem_id="comparison")
            with gr.Column(min_width=300):
                self._build_form(prompt)

    def _build_form(self, prompt: gr.Textbox) -> None:
        model = self.site.model
        self.preset = preset = size_choice(self.site)
        with gr.Row():
            steps = gr.Slider(*BOUNDS["steps"], model.steps, step=1, label="Steps", min_width=140)
            seed = _number("seed", 0)
        with gr.Accordion("Exact size and guidance", open=False), gr.Row():
            first = model.sizes[model.usual_size]
            size = [_number(name, value) for name, value in first._asdict().items()]
            guidance = _number("guidance", model.guidance, precision=None)
        shipped = [("Comes with the model", SHIPPED)] if model.plan is not None else []
        self.kind = gr.Radio(
            [*shipped, ("Automatic", AUTO), ("From the Plan tab", SHOWN)],
            value=SHIPPED if shipped else AUTO, label="Plan", elem_id="plan-kind",
        )  # fmt: skip
        with gr.Group(visible=not shipped) as auto:
            speeds = [(f"{name}, {speed.density:g}", name) for name, speed in SPEEDS.items()]
            speed = gr.Radio(
                [*speeds, (OTHER_DENSITY, OTHER_DENSITY)],
                value="balanced", label="Speed, and density of sparse steps",
            )  # fmt: skip
            density = gr.Slider(
                0.05, 1, 0.3, step=0.01, label="Density of sparse steps", visible=False
            )
        self.shown_line = gr.HTML(about_shown(self.site.first_plan))
        self.upload = upload_button("upload-generate")
        self.note = gr.HTML(elem_classes="aj-live")
        gr.HTML("Other prompts", elem_classes="aj-small")
        for text in model.prompts[1:5]:
            button = gr.Button(text, size="sm", elem_classes="aj-other")
            button.click(  # in the browser: a run that is started at once has the new prompt
                None, None, prompt, js=f"() => {json.dumps(text)}",
                queue=False, api_visibility="private",
            )  # fmt: skip
        self.form = [prompt, seed, steps, *size, guidance]
        self._plan_form = [self.kind, speed, density]
        preset.input(  # in the browser: a run that is started at once must have the new size
            None, preset, size, js=f"(name) => ({json.dumps(model.sizes)})[name]",
            queue=False, api_visibility="private",
        )  # fmt: skip
        self.kind.change(lambda value: gr.Group(visible=value == AUTO), self.kind, auto, **QUICK)
        speed.input(
            lambda value: gr.Slider(visible=value == OTHER_DENSITY), speed, density, **QUICK
        )

    def wire(self, shown: gr.State) -> Any:
        """Connect the buttons.

        Args:
            shown: the plan in the Plan tab, which a run replaces by the plan that it used.

        Returns:
            The event of a run that has ended.
        """

        def submit(*values: Any) -> Any:
            *fields, kind, speed, density, plan = values
            request = Request.of(*fields)
            chosen = plan_for(self.site, kind, speed, density, plan)
            return lambda pipe, job: self.site.runner.run(pipe, job, request, chosen), None

        def show(job: Job) -> Updates:
            return {self.status: run_progress(job.progress)}

        def finish(result: Result, *values: Any) -> Updates:
            *_, kind, _, _, plan = values
            ran = ShownPlan.of_result(result, "The plan of your last run")
            ran = self.site.completed(ran, plan)
            if kind == SHOWN:
                ran = replace(ran, source=plan.source)
            return {
                self.cards: run_cards(result.report, bundled=self.site.model.path is None),
                self.comparison: comparison(result, "Your run"),
                self.shown_line: about_shown(ran),
                shown: ran,
            }

        return self.buttons.wire(
            self.site, self.status, [*self.form, *self._plan_form, shown],
            [self.cards, self.comparison, self.shown_line, shown], submit, show, finish,
        )  # fmt: skip


def plan_for(
    site: Site, kind: Any, speed: Any, density: Any, shown: ShownPlan | None
) -> Plan | Auto:
    """The plan that the form asks for.

    Raises:
        ValueError: if there is no such plan, or a value is out of range.
    """
    if kind == SHIPPED and site.model.plan is not None:
        return site.model.plan
    if kind == SHOWN:
        if shown is None:
            raise ValueError("there is no plan in the Plan tab yet; upload a plan or search one")
        return shown.plan
    if kind != AUTO:
        raise ValueError(f"unknown kind of plan {kind!r}")
    return Auto(density) if speed == OTHER_DENSITY else resolve_plan("auto", speed=str(speed))


def about_shown(shown: ShownPlan | None) -> Markup:
    """A line on the plan in the Plan tab."""
    return render("about_shown", shown=shown)


def size_choice(site: Site, size: str | None = None) -> gr.Radio:
    """A choice among the model's sizes, by default of the usual size."""
    sizes = site.model.sizes
    choices = [(f"{name}: {size}", name) for name, size in sizes.items()]
    return gr.Radio(choices, value=size or site.model.usual_size, label="Size")


def _number(name: str, value: float, precision: int | None = 0) -> gr.Number:
    low, high = BOUNDS[name]
    return gr.Number(
        value, label=name.capitalize(), precision=precision, minimum=low, maximum=high, min_width=90
    )
