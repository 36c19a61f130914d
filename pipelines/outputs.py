"""Files that a command writes: checked before the work, and never replaced without a word."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ajour.files import read_json
from ajour.pipelines.usage import BadUsage
from ajour.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MOST_BYTES = 16 * 2**20
"""Largest JSON file that is looked at."""


def check_writable(out: Path) -> None:
    """Check that a file can be made, before any work.

    Raises:
        BadUsage: if the file is a folder, or a file cannot be made in its folder, with the reason.
    """
    name = quoted(str(out))
    try:
        if out.is_dir():
            raise BadUsage(f"--out {name} is a folder; name a file")
        folder = next(folder for folder in out.absolute().parents if folder.exists())
        if not folder.is_dir():
            raise BadUsage(f"--out {name} cannot be written: {folder} is no folder")
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".ajour-"):
            pass
        with suppress(FileNotFoundError):
            os.lstat(out)  # raises if no file can have the name
    except OSError as error:
        raise BadUsage(f"--out {name} cannot be written: {error.strerror}") from error
    except ValueError as error:
        if isinstance(error, BadUsage):
            raise
        raise BadUsage(f"--out {name} cannot be written: no file can have this name") from error


def check_unclaimed(files: Iterable[Path], force: bool, advice: str) -> None:
    """Check that no file would be replaced.

    Args:
        files: that will be written.
        force: whether they may be replaced.
        advice: what to do instead, for the message.

    Raises:
        BadUsage: if one of them exists.
    """
    taken = [] if force else [str(file) for file in files if file.exists()]
    if taken:
        verb = "exists" if len(taken) == 1 else "exist"
        raise BadUsage(f"{', '.join(taken)} {verb} and would be replaced; {advice}")


def digests(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of files, by their names."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def own_files(record: Path, files: Iterable[Path]) -> set[Path]:
    """The files that an earlier run of the same command wrote and nobody changed since.

    Args:
        record: the JSON file of the earlier run, whose `files` has digests by name.
        files: beside the record.
    """
    listed = _read(record).get("files")
    if not isinstance(listed, dict):
        return set()
    found = {file for file in files if file.is_file()}
    return {file for file in found if listed.get(file.name) == digests([file])[file.name]}


def is_made_by(file: Path, command: str) -> bool:
    """Whether a JSON file was written by a command of ajour."""
    return _read(file).get("made_by") == command


def _read(file: Path) -> Mapping[str, Any]:
    """A JSON object; empty if there is none."""
    with suppress(ValueError):
        data = read_json(file, MOST_BYTES, "file")
        if isinstance(data, dict):
            return data
    return {}
