"""The Generate tab: a form, live progress, and the comparison."""

from __future__ import annotations

import json
from collections.abc import Iterator  # noqa: TC003 - gradio reads annotations at run time
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from ajour.demo import pieces
from ajour.demo.device import DONE, Refused
from ajour.demo.heads import Shown  # noqa: TC001 - gradio reads annotations at run time
from ajour.demo.request import (
    MOST_FRAMES,
    MOST_SEED,
    MOST_SIDE,
    MOST_STEPS,
    MOST_WORDS,
    Request,
)
from ajour.demo.server import of_result
from ajour.pipelines.auto import SPEEDS, Auto
from ajour.pipelines.enable import resolve_plan

if TYPE_CHECKING:
    from ajour.demo.server import Site
    from ajour.plan import Plan

AUTO, SHIPPED, MINE = "auto", "shipped", "mine"
OWN_DENSITY = "own density"


@dataclass(frozen=True)
class GenerateTab:
    """What other tabs and the page need of this one."""

    form: list[Any]
    kind: gr.Radio
    mine: gr.HTML
    upload: gr.UploadButton
    note: gr.HTML
    run: gr.Button
    stop: gr.Button
    status: gr.HTML
    cards: gr.HTML
    comparison: gr.HTML
    plan_form: list[Any]


def build(site: Site) -> GenerateTab:
    """Lay the tab out, within a `gr.Tab`."""
    model = site.model
    size = next(iter(model.sizes.values()))
    with gr.Row(elem_classes="aj-columns"):
        with gr.Column(scale=2, min_width=300):
            prompt = gr.Textbox(
                model.prompts[0], label="Prompt", lines=3, max_length=MOST_WORDS, elem_id="prompt"
            )
            with gr.Row():
                run = gr.Button("Generate", variant="primary", elem_id="generate", min_width=140)
                stop = gr.Button("Stop", interactive=False, elem_id="stop", min_width=100)
            preset = gr.Radio(
                [(f"{name}: {one}", name) for name, one in model.sizes.items()],
                value=next(iter(model.sizes)), label="Size", elem_id="size",
            )  # fmt: skip
            with gr.Row():
                steps = gr.Slider(2, MOST_STEPS, model.steps, step=1, label="Steps", min_width=140)
                seed = gr.Number(
                    0, label="Seed", precision=0, minimum=0, maximum=MOST_SEED, min_width=100
                )
            with gr.Accordion("Exact size and guidance", open=False), gr.Row():
                frames = gr.Number(
                    size.frames, label="Frames", precision=0, minimum=1, maximum=MOST_FRAMES,
                    min_width=90,
                )  # fmt: skip
                height = gr.Number(
                    size.height, label="Height", precision=0, minimum=32, maximum=MOST_SIDE,
                    min_width=90,
                )  # fmt: skip
                width = gr.Number(
                    size.width, label="Width", precision=0, minimum=32, maximum=MOST_SIDE,
                    min_width=90,
                )  # fmt: skip
                guidance = gr.Number(
                    model.guidance, label="Guidance", minimum=0, maximum=30, min_width=90
                )
            shipped = [("Shipped with the model", SHIPPED)] if model.plan is not None else []
            kind = gr.Radio(
                [*shipped, ("Automatic", AUTO), ("The one in the Plan tab", MINE)],
                value=SHIPPED if shipped else AUTO, label="Plan", elem_id="plan-kind",
            )  # fmt: skip
            with gr.Group(visible=not shipped) as auto:
                speed = gr.Radio(
                    [*((f"{name}, {value:g}", name) for name, value in SPEEDS.items()),
                     ("own density", OWN_DENSITY)],
                    value="balanced", label="Speed and density of sparse steps",
                )  # fmt: skip
                density = gr.Slider(0.05, 1, 0.3, step=0.01, label="Density", visible=False)
            mine = gr.HTML(about(site.first_plan()))
            upload = gr.UploadButton(
                "Upload a plan", file_types=[".json"], size="sm", elem_id="upload-generate"
            )
            note = gr.HTML(elem_classes="aj-live")
            gr.Examples(
                [[text] for text in model.prompts[:4]],
                prompt,
                label="Other prompts",
                api_visibility="private",
            )
        with gr.Column(scale=3, min_width=320):
            status = gr.HTML(elem_id="status", elem_classes="aj-live")
            example = site.example
            cards = gr.HTML(pieces.cards(example.report) if example else "", elem_id="cards")
            comparison = gr.HTML(
                pieces.comparison(example, "Stored example") if example else pieces.NO_EXAMPLE,
                elem_id="comparison",
            )
    preset.input(  # in the page: a run that is started right after it must have the new size
        None, preset, [frames, height, width],
        js=f"(name) => ({json.dumps(model.sizes)})[name]",
        queue=False, api_visibility="private",
    )  # fmt: skip
    kind.change(lambda value: gr.Group(visible=value == AUTO), kind, auto, **quick())
    speed.input(lambda value: gr.Slider(visible=value == OWN_DENSITY), speed, density, **quick())
    form = [prompt, seed, steps, frames, height, width, guidance]
    return GenerateTab(
        form, kind, mine, upload, note, run, stop, status, cards, comparison, [kind, speed, density]
    )


def wire(site: Site, tab: GenerateTab, shown: gr.State) -> Any:
    """Connect the buttons.

    Returns:
        The event of a finished run, after which the plan that is shown may be another one.
    """

    def generate(request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        *fields, kind, speed, density, plan = values
        owner = owner_of(request)
        try:
            asked = Request.of(*fields)
            chosen = plan_for(site, kind, speed, density, plan)
            job = site.device.submit(
                owner, lambda pipe, job: site.runner.run(pipe, job, asked, chosen)
            )
        except (Refused, ValueError) as error:  # PlanError is a ValueError
            yield {tab.status: pieces.note(str(error), "bad")}
            return
        working = {tab.run: gr.Button(interactive=False), tab.stop: gr.Button(interactive=True)}
        try:
            for now in job.watch():
                shown_now = pieces.progress(now, site.device.ahead(now))
                yield {tab.status: shown_now} | working
                working = {}
        finally:
            job.stop()  # without effect on a finished one; the page may have been closed
        last: dict[Any, Any] = {
            tab.run: gr.Button(interactive=True), tab.stop: gr.Button(interactive=False),
        }  # fmt: skip
        if job.state == DONE:
            result = job.result
            ran = of_result(result, "The plan of your last run")
            found = ran if kind != MINE else replace(ran, source=plan.source)
            last |= {
                tab.cards: pieces.cards(result.report),
                tab.comparison: pieces.comparison(result, "Your run"),
                shown: found,
                tab.mine: about(found),
            }
        yield last

    def stop(request: gr.Request) -> Any:
        return stop_run(site, owner_of(request))

    tab.run.click(None, js=show("status"))
    tab.stop.click(stop, None, tab.status, **quick())
    return tab.run.click(
        generate,
        [*tab.form, *tab.plan_form, shown],
        [tab.status, tab.cards, tab.comparison, tab.run, tab.stop, tab.mine, shown],
        show_progress="hidden",
        concurrency_limit=16,
        concurrency_id="runs",
        api_visibility="private",
    )


def plan_for(site: Site, kind: Any, speed: Any, density: Any, shown: Shown | None) -> Plan | Auto:
    """The plan that the form asks for.

    Raises:
        ValueError: if there is none, or a value is out of range.
    """
    if kind == SHIPPED and site.model.plan is not None:
        return site.model.plan
    if kind == MINE:
        if shown is None:
            raise ValueError("there is no plan in the Plan tab yet; upload or search one")
        return shown.plan
    if kind != AUTO:
        raise ValueError(f"unknown kind of plan {kind!r}")
    if speed != OWN_DENSITY:
        return resolve_plan("auto", speed=str(speed))
    return Auto(density)


def about(shown: Shown | None) -> str:
    """A line on the plan in the Plan tab."""
    text = "empty" if shown is None else shown.source
    return f'<p class="aj-small">In the Plan tab: {escape(text)}.</p>'


def owner_of(request: gr.Request, kind: str = "generate") -> str:
    """The name of a user's jobs of a kind."""
    return f"{request.session_hash}/{kind}"


def stop_run(site: Site, owner: str) -> Any:
    """Stop a run. It tells of that itself: two writers of one line could overtake each other."""
    return gr.skip() if site.device.stop(owner) else pieces.note("There is nothing to stop.")


def quick() -> dict[str, Any]:
    """Options of events that never wait for the device."""
    return {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


def show(element: str) -> str:
    """JavaScript that brings an element into sight where the page is one narrow column."""
    return (
        f"() => {{ if (innerWidth < 720) setTimeout(() => document.getElementById('{element}')"
        ".scrollIntoView({ behavior: 'smooth' }), 400); }"
    )
