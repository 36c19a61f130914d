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
    from collections.abc import Iterable, Sequence

    from ajour.processors import Family

PAGE = Path(__file__).parents[1] / "docs" / "support.md"

INTRODUCTION = """\
# What is supported

This page is written by `python -m tools.support` from the families in `processors/`. Every family
is tested with a tiny random model:

- a plan that keeps everything equals stock,
- a sparse plan equals stock with the reference operator in place of its attention,
- after `ajour.disable` results are bit-identical to stock.

For all families:

- Tokens that are not on the grid of video or image tokens are exact, as keys and as queries: text,
  reference images, frames to condition on.
- Layers with an attention processor that the family does not know run dense, for example those of
  an IP-adapter. With context parallelism all layers run dense.
- Whatever runs dense against the plan is logged once and listed by `ajour.summary(pipe)`; with
  `strict=True` it raises. [Troubleshooting](troubleshooting.md) says what to do.

A model that is missing may need [20 to 40 lines](adding-a-model-family.md).
"""

SHARES = """\
These are all other transformers that diffusers exports. Where the model's width
is known, the sentence ends with attention's share of a block's FLOPs at a usual size.
The share is computed, and not every width was checked against released weights. For N tokens of C
channels the two products with the attention map take 4 N² C FLOPs, and linear layers with w C²
weights take 2 N w C², so the share is 2 N / (2 N + w C). No sparsity saves more than that."""


def page() -> str:
    """The whole page as Markdown."""
    overview = table(("family", "for", "pipelines"), map(row, FAMILIES))
    refused = table(
        ("transformer", "why"), ((f"`{name}`", reason) for name, reason in REFUSED.items())
    )
    parts = [
        "## Overview",
        overview,
        *map(section, FAMILIES),
        "## Not supported, and why",
        SHARES,
        refused,
    ]
    return "\n".join([INTRODUCTION, "\n\n".join(parts), ""])


def row(family: Family) -> tuple[str, str, str]:
    """A family's row of the overview."""
    name = type(family).__name__
    return f"[{name}](#{name.lower()})", title(family), str(len(family.pipelines))


def section(family: Family) -> str:
    """All about one family."""
    facts = [
        ("transformer", code(family.classes)),
        ("pipelines", code(family.pipelines)),
        ("sparse", family.sparse),
        *(("dense", reason) for reason in family.dense),
        *(("dense", f"`{name}`: {why}") for name, why in family.dense_pipelines.items()),
    ]
    lines = [f"- **{fact}**: {text}" for fact, text in facts]
    return "\n".join([f"## {type(family).__name__}", "", f"{title(family)}.", "", *lines])


def title(family: Family) -> str:
    """The first line of a family's docstring, without its full stop."""
    return (inspect.getdoc(type(family)) or "").partition("\n")[0].rstrip(".")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(names: Iterable[str]) -> str:
    """Names in code type, one after the other."""
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    PAGE.write_text(page())
