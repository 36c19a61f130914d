"""Plans that go from tab to tab: an upload into all of them, a search's plan into the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from ajour.demo.heads import ShownPlan  # noqa: TC001 - gradio reads annotations at run time
from ajour.demo.render import note
from ajour.demo.searching import SearchResult  # noqa: TC001 - the same
from ajour.demo.tab_generate import SHOWN, GenerateTab, about_shown
from ajour.demo.tabs import DRAWING
from ajour.demo.uploading import uploaded
from ajour.plan import PlanError

if TYPE_CHECKING:
    from ajour.demo.server import Site
    from ajour.demo.tab_plan import PlanTab
    from ajour.demo.tab_search import SearchTab
    from ajour.demo.tabs import Updates


def wire_uploads(site: Site, shown: gr.State, generate: GenerateTab, plan: PlanTab) -> None:
    """Connect the two buttons that upload a plan. A failed upload changes nothing but its note."""
    notes = [generate.note, plan.note]

    def upload(before: ShownPlan | None, colour: str, event: gr.EventData) -> dict[Any, Any]:
        try:
            sent, text = site.read_upload(*uploaded(event))
        except PlanError as error:
            return dict.fromkeys(notes, note(str(error), "bad"))
        after = site.completed(sent, before)
        return {
            shown: after, **dict.fromkeys(notes, text), **plan.updates(after, colour),
            generate.shown_line: about_shown(after), generate.kind: SHOWN,
        }  # fmt: skip

    outputs = [shown, *notes, generate.shown_line, generate.kind, *plan.outputs]
    for button in (generate.upload, plan.upload):
        button.upload(upload, [shown, plan.colour], outputs, **DRAWING)


def wire_found(
    site: Site,
    shown: gr.State,
    tabs: gr.Tabs,
    generate: GenerateTab,
    plan: PlanTab,
    search: SearchTab,
) -> None:
    """Connect the buttons for a search's plan, whatever plan was shown since."""

    def found_look(result: SearchResult | None, colour: str) -> dict[Any, Any]:
        if result is None:
            return {tabs: gr.skip()}
        return _views(result, colour) | {tabs: gr.Tabs(selected="plan")}

    def found_use(result: SearchResult | None, colour: str) -> dict[Any, Any]:
        if result is None:
            return {tabs: gr.skip()}
        _, seed, steps, *size, guidance = generate.form
        request = result.request
        values = [request.seed, request.steps, *request.size, request.guidance]
        form = dict(zip([seed, steps, *size, guidance], values, strict=True))
        return _views(result, colour) | form | {
            generate.preset: site.model.name_of(request.size), generate.kind: SHOWN,
            tabs: gr.Tabs(selected="generate"),
        }  # fmt: skip

    def _views(result: SearchResult, colour: str) -> Updates:
        line = about_shown(result.shown)
        views = plan.updates(result.shown, colour)
        return {shown: result.shown, generate.shown_line: line, **views}

    inputs = [search.found, plan.colour]
    outputs = [shown, generate.shown_line, *plan.outputs, tabs]
    search.look.click(found_look, inputs, outputs, **DRAWING)
    search.use.click(
        found_use, inputs, [*outputs, *generate.form[1:], generate.preset, generate.kind],
        **DRAWING,
    )  # fmt: skip
