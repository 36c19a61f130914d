"""Writes docs/support.md, what is supported and what runs dense, from the registry of families.

`python -m tools.support`
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from ajour.processors.refused import REFUSED
from ajour.processors.registry import FAMILIES

if TYPE_CHECKING:
    from ajour.processors import Family

PAGE = Path(__file__).parents[1] / "docs" / "support.md"

INTRODUCTION = """\
# What is supported

Written by `python -m tools.support` from the families in `processors/`. Each of them is tested
with a tiny random model: a plan that keeps everything equals stock, a sparse plan equals the
reference operator in place of stock attention, and `ajour.disable` is bit-identical.

Everywhere, tokens that are not on the grid of video or image tokens are exact, as keys and as
queries: text, and images or frames to refer to. A processor that no family knows, or context
parallelism, makes layers run dense. Whatever runs dense within a call is logged once and is listed
by `ajour.summary(pipe)`; with `strict=True` it raises.
"""


def page() -> str:
    """The whole page as Markdown."""
    refused = [f"- `{name}`: {reason}." for name, reason in REFUSED.items()]
    return "\n".join(
        [INTRODUCTION, *map(section, FAMILIES), "## Not supported, and why\n", *refused, ""]
    )


def section(family: Family) -> str:
    """What the page says of one family."""
    title, _, _ = (inspect.getdoc(type(family)) or "").partition("\n")
    lines = [f"## {type(family).__name__}", "", title, ""]
    lines.append(f"- Transformer: {_code(family.classes)}")
    lines.append(f"- Processors it stands in for: {_code(family.known_processors())}")
    lines.append(f"- Pipelines: {_code(family.pipelines)}")
    lines.append(f"- Sparse: {family.sparse}.")
    lines += [f"- Dense: {reason}." for reason in family.dense]
    lines += [f"- Dense: `{name}`: {why}." for name, why in family.dense_pipelines.items()]
    return "\n".join([*lines, ""])


def _code(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    PAGE.write_text(page())
