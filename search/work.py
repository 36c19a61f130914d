"""Finished units of work on disk, one line each, so that a search can be resumed."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from filelock import FileLock, Timeout

from ajour.files import check_json
from ajour.quoting import quoted, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

T = TypeVar("T")

logger = logging.getLogger("ajour")

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
        lock: the lock of the folder, which `close` gives back; see `locked`.

    Attributes:
        done: values of finished units by key.
        file: where this process notes its units.

    Raises:
        WorkError: if there is work that cannot be resumed; the message says what to do.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        resume: bool = False,
        rank: int = 0,
        lock: FileLock | None = None,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / f"work-{rank}.jsonl"
        self.done: dict[str, Any] = {}
        self._lock = lock
        self._places: dict[str, tuple[Path, int]] = {}
        files = sorted(folder.glob("work-*.jsonl"))
        if files and not resume:
            raise WorkError(
                f"{folder} holds the work of an earlier search; resume it (--resume), or "
                "delete the folder to start over"
            )
        for file in files:
            for number, (key, value) in enumerate(_read(file), 1):
                self.done.setdefault(key, value)
                self._places.setdefault(key, (file, number))
        self._check("identity", identity)
        if self.file.exists():  # drop a last line that was not finished
            os.truncate(self.file, self.file.read_bytes().rfind(b"\n") + 1)
        self.claim("identity", identity)

    def close(self) -> None:
        """Let another search use the folder."""
        if self._lock is not None:
            self._lock.release()

    def claim(self, key: str, identity: Mapping[str, Any]) -> None:
        """Note another part of what the work is for, as JSON; later starts must give the same.

        Raises:
            WorkError: if the work was begun for something else; the message says what differs.
        """
        self._check(key, identity)
        if key not in self.done:
            self.put(key, identity)

    def put(self, key: str, value: Any) -> None:
        """Note a finished unit; its value is JSON, and is read back as such.

        Raises:
            WorkError: if the value has a number that is not finite.
            OSError: if it cannot be written, for example on a full disk.
        """
        try:
            check_json(value, f"the unit {key!r}")
        except ValueError as error:
            raise WorkError(
                f"{error}; does the pipeline give finite values in this dtype, without a plan?"
            ) from error
        line = json.dumps([key, value])
        size = self.file.stat().st_size if self.file.exists() else 0
        try:
            with self.file.open("a") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if self.file.exists():
                os.truncate(self.file, size)
            raise OSError(error.errno, error.strerror, str(self.file)) from error
        self.done[key] = json.loads(line)[1]

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        """The value of a unit, computed unless it was finished before."""
        if key not in self.done:
            self.put(key, compute())
        return self.done[key]

    def read(self, key: str, parse: Callable[[Any], T]) -> T:
        """The value of a finished unit as an object.

        Args:
            key: of the unit.
            parse: makes the object from the value.

        Raises:
            WorkError: if a value that was read from a file has another form, with the line.
        """
        try:
            return parse(self.done[key])
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            if key not in self._places:
                raise  # it was made in this process
            raise _damaged(*self._places[key], f"unit {quoted(key)}: {error}") from error

    def _check(self, key: str, identity: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps(dict(identity)))
        if not isinstance(self.done.get(key, wanted), dict):
            raise _damaged(*self._places[key], f"unit {quoted(key)}: an object is needed")
        differing = _differences(self.done.get(key, wanted), wanted)
        if differing:
            raise WorkError(
                f"the work in {self.folder} was begun with another "
                f"{shortened(', '.join(differing), 400)}; resume with the same arguments, weights, "
                "device and versions, or start over with another --out or folder"
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
            check_json(value, "the value")
        except (RecursionError, TypeError, ValueError) as error:
            raise _damaged(file, number, "it holds no finished unit of work") from error
        units.append((key, value))
    return units


def _damaged(file: Path, line: int, why: str) -> WorkError:
    return WorkError(
        f"{file}, line {line}, is damaged: {shortened(why, 400)}; delete the line, and the unit is "
        "done again"
    )


def locked(folder: Path) -> FileLock | None:
    """Hold a search's folder, so that another search cannot use it at the same time.

    The system gives the lock back when the process ends, however it ends.

    Returns:
        The lock, for `Work`; None where the file system has no locks, which is logged.

    Raises:
        WorkError: if another search holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise WorkError(
            f"another search is at work in {folder}; wait until it has ended, or give this search "
            "another --out"
        ) from error
    except NotImplementedError:
        logger.warning("%s is on a file system without locks; run one search in it", folder)
        return None
    return lock


def rounded(values: Any, digits: int = 5) -> Any:
    """Numbers with a few significant digits: enough, and the same however threads added them up."""
    flat = [float(f"{float(x):.{digits}g}") for x in np.asarray(values).flat]
    return np.array(flat).reshape(np.shape(values)).tolist()
