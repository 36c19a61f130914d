"""Reading files from others: bounded, and with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json(path: str | Path, limit: int, what: str) -> Any:
    """Read a JSON file of a bounded size.

    Args:
        path: the file.
        limit: largest size that is read, in bytes.
        what: name of the content for error messages, such as `plan`.

    Raises:
        ValueError: if the file cannot be read, is larger than `limit`, or is not JSON, deep
            nesting included.
    """
    try:
        with Path(path).open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise ValueError(f"cannot read {what} {str(path)!r}: {error.strerror}") from error
    return parse_json(raw, limit, f"{what} {str(path)!r}")


def parse_json(raw: bytes, limit: int, what: str) -> Any:
    """Parse JSON of a bounded size.

    Args:
        raw: the text, encoded as UTF-8.
        limit: largest size that is parsed, in bytes.
        what: kind and name of the content for error messages, such as `plan 'a.json'`.

    Raises:
        ValueError: if the text is larger than `limit`, or is not JSON, deep nesting included.
    """
    if len(raw) > limit:
        size = f"{limit >> 20} MiB" if limit >= 2**20 else f"{limit} bytes"
        raise ValueError(f"{what} is larger than {size}")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not JSON: {error}") from error
