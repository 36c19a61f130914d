"""Short quotations for error messages, whatever the value is."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

QUOTED = 100
"""Most characters of a value from outside that a message repeats."""

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = QUOTED
_repr.maxlevel = 3


def quoted(value: object) -> str:
    """A value as Python writes it, cut in its middle to a hundred characters.

    Nesting of any depth, integers of any length and text that cannot be encoded are shown too.
    """
    try:
        text = _repr.repr(value)
    except ValueError:  # Python writes no integers of thousands of digits
        text = f"<{type(value).__name__}>"
    return shortened(text)


def listed(names: Iterable[str]) -> str:
    """Names behind commas, cut in the middle to a hundred characters."""
    return shortened(", ".join(names))


def shortened(text: str, limit: int = QUOTED) -> str:
    """Text on one line, cut in its middle to `limit` characters."""
    text = " ".join(text.split())
    if len(text) <= limit:
        return text
    kept = limit - 3
    return f"{text[: kept // 2]}...{text[len(text) - (kept - kept // 2) :]}"
