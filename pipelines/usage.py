"""Bad usage of the command line, which is told apart from a job that failed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class BadUsage(ValueError):
    """What was asked for cannot be done as it was asked; the message gives the rule."""


@contextmanager
def as_usage() -> Iterator[None]:
    """Raise a ValueError of the block as `BadUsage`."""
    try:
        yield
    except ValueError as error:
        raise BadUsage(str(error)) from error
