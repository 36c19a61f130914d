"""HTML from the folder `templates`; every value is escaped there."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from ajour.pipelines.pages import templates

TEMPLATES = templates("ajour.demo")


def render(template: str, /, **values: Any) -> Markup:
    """A template with values: `note` is the file `note.html`. Other templates take it as HTML."""
    return Markup(TEMPLATES.get_template(f"{template}.html").render(values).strip())


def note(text: str, kind: str = "") -> Markup:
    """A line of text.

    Args:
        text: plain text.
        kind: empty, `good`, or `bad`, which screen readers read out at once.
    """
    return render("note", text=text, kind=kind)
