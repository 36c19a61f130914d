"""A button that uploads a plan: the browser reads the file and sends its text with the event.

So no file of a visitor is ever on this server's disk, and gradio's own uploads stay closed.
"""

from __future__ import annotations

import gradio as gr

from ajour.demo.render import render
from ajour.demo.server import MOST_BYTES
from ajour.plan import PlanError

LISTEN = "element.addEventListener('ajour-upload', (event) => trigger('upload', event.detail));"


def upload_button(elem_id: str) -> gr.HTML:
    """The button; its event `upload` carries what `uploaded` reads."""
    return gr.HTML(render("upload", most=MOST_BYTES), js_on_load=LISTEN, elem_id=elem_id)


def uploaded(event: gr.EventData) -> tuple[str, str]:
    """The name and the text of an uploaded file.

    Raises:
        PlanError: if the event has none, or the file is too large: the browser sends no text then.
    """
    try:
        name, text = event.name, event.text
    except (AttributeError, TypeError):
        name = text = None
    if isinstance(name, str) and isinstance(text, str):
        return name, text
    raise PlanError(f"an uploaded plan has at most {MOST_BYTES >> 20} MiB; upload a smaller one")
