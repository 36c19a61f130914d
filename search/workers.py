"""Units of work shared between the processes of `accelerate launch` or torchrun."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from tqdm import tqdm

from ajour.search.work import Work, locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


PATIENCE = timedelta(days=1)
"""How long a process waits for the others, which may have one more unit to do. Launchers end all
processes when one fails."""


STAGES = {
    "probe": "probing one step, for the grid and the steps of a run",
    "prompt": "calibrating on a prompt",
    "costs": "timing layers and passes",
    "dense": "running a verification prompt densely",
    "plan": "verifying a plan on a prompt",
    "passes": "timing the passes of a plan",
}
"""What a unit of work does, by a word of its key."""


class Workers:
    """The processes of a search: a single process, or the processes of a launcher.

    Results are joined in the order of the units, so a sum over them does not depend on which
    process computed which unit. `rank` is the number of this process, from 0. `say` is called with
    a line before each unit of the first process.
    """

    def __init__(
        self, rank: int = 0, count: int = 1, say: Callable[[str], None] | None = None
    ) -> None:
        self.rank = rank
        self.count = count
        self.say = say

    @classmethod
    @contextmanager
    def connected(cls, say: Callable[[str], None] | None = None) -> Iterator[Workers]:
        """The processes of the launcher that set WORLD_SIZE, connected over gloo, or just one."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            yield cls(say=say)
            return
        own = not dist.is_initialized()
        if own:
            dist.init_process_group("gloo", timeout=PATIENCE)
        try:
            yield cls(dist.get_rank(), dist.get_world_size(), say)
        finally:
            if own:
                dist.destroy_process_group()

    def place(self, device: str | None = None) -> str | None:
        """Choose the device of this process, and make it the current GPU if it is one.

        Where a launcher started several processes, `cuda` and None mean a different GPU for each
        process of a host. Without a GPU, the device is returned as it is.
        """
        if not torch.cuda.is_available():
            return device
        if self.count > 1 and device in (None, "cuda"):
            device = f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}"
        chosen = torch.device(device or "cpu")
        if chosen.type == "cuda" and chosen.index is not None:
            torch.cuda.set_device(device)
        return device

    @property
    def first(self) -> bool:
        """Whether this is the first process, which times, prints and writes."""
        return self.rank == 0

    def open(self, folder: Path, identity: Mapping[str, Any], resume: bool) -> Work:
        """Open the work in a folder; arguments and errors are those of `Work`.

        The first process holds the folder for all of them until it calls `close`, and checks
        whether it can be resumed before others add their files.

        Raises:
            WorkError: also if another search is at work in the folder.
        """
        work = self._open_first(folder, identity, resume) if self.first else None
        self._gather(None)
        return work or Work(folder, identity, True, self.rank)

    def _open_first(self, folder: Path, identity: Mapping[str, Any], resume: bool) -> Work:
        lock = locked(folder)
        try:
            return Work(folder, identity, resume, lock=lock)
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    def claim(self, work: Work, key: str, identity: Mapping[str, Any]) -> None:
        """Call `Work.claim` with the identity of the first process."""
        work.claim(key, self._gather(dict(identity))[0])

    def share(
        self,
        work: Work,
        key: str,
        count: int,
        compute: Callable[[int, Callable[[], Any]], Any],
        parts: int = 1,
    ) -> list[Any]:
        """The values of numbered units; missing units are divided between the processes.

        Args:
            work: where finished units are kept.
            key: of the units, without their numbers.
            count: of units.
            compute: gives a unit's value as JSON, from its number and a callable for the progress
                bar, which it calls after each part.
            parts: of a unit.

        Returns:
            In the order of the units; the same in every process.
        """
        keys = [f"{key}/{number}" for number in range(count)]
        finished = set().union(*self._gather([key for key in keys if key in work.done]))
        missing = [number for number in range(count) if keys[number] not in finished]
        numbers = missing[self.rank :: self.count]
        label, hidden = key.split("/")[0], None if numbers and self.first else True
        with tqdm(total=len(numbers) * parts, desc=label, unit="run", disable=hidden) as bar:
            for done, number in enumerate(numbers, 1):
                self._announce(label, f", {done} of {len(numbers)}")
                work.once(keys[number], partial(compute, number, bar.update))
        values: dict[str, Any] = {}
        for gathered in self._gather({key: work.done[key] for key in keys if key in work.done}):
            values |= gathered
        return [work.once(key, partial(values.get, key)) for key in keys]

    def first_only(self, work: Work, key: str, compute: Callable[[], Any]) -> Any:
        """The value of a unit that only the first process computes, such as a timing."""
        if key not in work.done:
            self._announce(key.split("/")[-1])
        value = work.once(key, compute) if self.first else None
        value = self._gather(value)[0]
        return work.once(key, lambda: value)

    def _announce(self, stage: str, place: str = "") -> None:
        if self.first and self.say is not None:
            self.say(STAGES[stage] + place)

    def _gather(self, value: Any) -> list[Any]:
        """The value of every process, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values
