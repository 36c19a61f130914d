"""Files: reading JSON from others, bounded; and writing files whole or not at all."""

from __future__ import annotations

import json
import math
import os
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajour.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

DEPTH = 64
"""Most levels of lists and objects in a JSON file."""

WORD = 2**64
"""Integers in a JSON file are below it."""


def read_json(path: str | Path, limit: int, what: str) -> Any:
    """Read a JSON file of a bounded size.

    Args:
        path: the file.
        limit: largest size that is read, in bytes.
        what: name of the content for error messages, such as `plan`.

    Raises:
        ValueError: if the file cannot be read, is larger than `limit`, or is not JSON as
            `check_json` describes it.
    """
    name = quoted(str(path))
    try:
        with Path(path).open("rb") as file:
            raw = file.read(limit + 1)
    except IsADirectoryError as error:
        reason = f"it is a folder; name the {what} file in it"
        raise ValueError(f"cannot read {what} {name}: {reason}") from error
    except OSError as error:
        raise ValueError(f"cannot read {what} {name}: {error.strerror}") from error
    except (TypeError, ValueError) as error:  # a null byte, text that cannot be encoded
        raise ValueError(f"cannot read {what} {name}: no file can have this name") from error
    return parse_json(raw, limit, f"{what} {name}")


def parse_json(raw: bytes, limit: int, what: str) -> Any:
    """Parse JSON of a bounded size.

    Args:
        raw: the text, encoded as UTF-8.
        limit: largest size that is parsed, in bytes.
        what: kind and name of the content for error messages, such as `plan 'a.json'`.

    Raises:
        ValueError: if the text is larger than `limit`, is not JSON, or breaks `check_json`.
    """
    if len(raw) > limit:
        raise ValueError(f"{what} is larger than {in_words(limit)}")
    try:
        data = json.loads(raw, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError(f"{what} is not JSON of at most {DEPTH} levels") from error
    except ValueError as error:
        raise ValueError(f"{what} is not JSON: {error}") from error
    check_json(data, what)
    return data


def in_words(size: int) -> str:
    """A number of bytes, such as `16 MiB`."""
    return f"{size >> 20} MiB" if size >= 2**20 else f"{size} bytes"


def check_json(data: Any, what: str) -> None:
    """Check that data can be written as JSON, and read again.

    Args:
        data: anything; a tuple counts as a list.
        what: name of the data for error messages.

    Raises:
        ValueError: if it has more than 64 levels, anything but objects, lists, text, numbers,
            true, false and null, keys that are no text, numbers that are not finite, integers
            from 2**64 on, or text with half of a surrogate pair.
    """
    waiting = [(data, 0)]
    while waiting:
        value, level = waiting.pop()
        if level > DEPTH:
            raise ValueError(f"{what} may have at most {DEPTH} levels of lists and objects")
        if isinstance(value, dict):
            waiting += ((part, level + 1) for pair in value.items() for part in pair)
            if not all(isinstance(key, str) for key in value):
                raise ValueError(f"{what} has a key that is no text: {quoted(list(value))}")
        elif isinstance(value, list | tuple):
            waiting += ((part, level + 1) for part in value)
        else:
            _check_leaf(value, what)


def _check_leaf(value: Any, what: str) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{what} has text that is not Unicode: {quoted(value)}") from error
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{what} has a number that is not finite: {quoted(value)}")
    elif isinstance(value, int):  # true and false too
        if not -WORD < value < WORD:
            raise ValueError(f"{what} has an integer of more than 64 bits: {quoted(value)}")
    elif value is not None:
        raise ValueError(f"{what} holds a {type(value).__name__}, which JSON cannot")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def write_json(path: str | Path, data: Any, indent: int | None = 1) -> None:
    """Write a JSON file, whole or not at all; a number that is not finite is written as null.

    Raises:
        OSError: if it cannot be written, with the file's name.
    """
    text = json.dumps(finite(data), indent=indent, allow_nan=False)
    write_text(path, text + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        OSError: if it cannot be written, with the file's name.
    """
    with replacing(path) as file:
        file.write(text.encode())


def finite(data: Any) -> Any:
    """JSON data with null for every number that is not finite."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` when the block ends without an exception.

    Until then, and after a crash or on a full disk, the earlier file stays as it is.

    Raises:
        OSError: if it cannot be written, with the name of `path`.
    """
    target = Path(path).resolve()  # what a link points to, not the link
    part = target.with_name(f".ajour-{os.getpid()}-{threading.get_ident()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        part.unlink(missing_ok=True)
