"""Finished units of work on disk, one line each, so that a search can be resumed."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

SHORT = 60
"""Differing values of at most this many characters are shown."""

MOST = 4
"""Differing entries of a value that are listed."""


class WorkError(ValueError):
    """The folder of unfinished work is damaged, or belongs to another search."""


class Work:
    """Finished units by key, appended to a file as they finish.

    An interruption loses only the unit under way: a line that was cut off is dropped on the next
    start. Each process of a distributed search writes its own file and reads all files.

    Args:
        folder: of the files; created if it does not exist.
        identity: what the work is for, as JSON; work for anything else is refused.
        resume: go on with the folder's work; otherwise the folder must not hold any.
        rank: number of this process.

    Attributes:
        done: values of finished units by key.

    Raises:
        WorkError: if there is work that cannot be resumed; the message says what to do.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], resume: bool = False, rank: int = 0
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"work-{rank}.jsonl"
        self.done: dict[str, Any] = {}
        files = sorted(folder.glob("work-*.jsonl"))
        if files and not resume:
            raise WorkError(
                f"{folder} holds the work of an earlier search; resume it (--resume), or "
                "delete the folder to start over"
            )
        for file in files:
            for key, value in _read(file):
                self.done.setdefault(key, value)
        self._check("identity", identity)
        if self._file.exists():  # drop a last line that was not finished
            os.truncate(self._file, self._file.read_bytes().rfind(b"\n") + 1)
        self.claim("identity", identity)

    def claim(self, key: str, identity: Mapping[str, Any]) -> None:
        """Note another part of what the work is for, as JSON; later starts must give the same.

        Raises:
            WorkError: if the work was begun for something else; the message says what differs.
        """
        self._check(key, identity)
        if key not in self.done:
            self.put(key, identity)

    def put(self, key: str, value: Any) -> None:
        """Note a finished unit; its value is JSON, and is read back as such."""
        line = json.dumps([key, value])
        with self._file.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.done[key] = json.loads(line)[1]

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        """The value of a unit, computed unless it was finished before."""
        if key not in self.done:
            self.put(key, compute())
        return self.done[key]

    def _check(self, key: str, identity: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps(dict(identity)))
        differing = _differences(self.done.get(key, wanted), wanted)
        if differing:
            raise WorkError(
                f"the work in {self.folder} was begun with another {', '.join(differing)}; resume "
                "with the same arguments, weights, device and versions, or start over with "
                "another --out or folder"
            )


def _differences(before: Any, after: Any) -> list[str]:
    """Entries that differ between two JSON objects, with their values if those are short."""
    differing = []
    for name in sorted(before.keys() | after.keys()):
        then, now = before.get(name), after.get(name)
        if then == now:
            continue
        if isinstance(then, dict) and isinstance(now, dict):
            parts = _differences(then, now)
            more = [f"{len(parts) - MOST} more"] if len(parts) > MOST else []
            differing.append(f"{name} ({', '.join(parts[:MOST] + more)})")
        elif max(len(str(then)), len(str(now))) <= SHORT:
            differing.append(f"{name}: {then} then, {now} now")
        else:
            differing.append(name)
    return differing


def _read(file: Path) -> list[tuple[str, Any]]:
    lines = file.read_bytes().split(b"\n")[:-1]  # what follows the last line break was cut off
    units = []
    for number, line in enumerate(lines, 1):
        try:
            key, value = json.loads(line)
            if not isinstance(key, str):
                raise TypeError(key)
        except (TypeError, ValueError) as error:
            raise WorkError(
                f"{file}, line {number}, is damaged: it holds no finished unit of work; delete "
                "the line, and the unit is done again"
            ) from error
        units.append((key, value))
    return units


def rounded(values: Any, digits: int = 5) -> Any:
    """Numbers with a few significant digits: enough, and the same however threads added them up."""
    flat = [float(f"{float(x):.{digits}g}") for x in np.asarray(values).flat]
    return np.array(flat).reshape(np.shape(values)).tolist()
