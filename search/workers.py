"""Units of work shared between the processes of `accelerate launch` or torchrun."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from ajour.search.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


PATIENCE = timedelta(days=1)
"""How long a process waits for the others, who may have a unit more to do; launchers end all
processes when one fails."""


class Workers:
    """The processes of a search: one, or those that a launcher started.

    Results are kept by unit and joined in the order of the units, so a sum over them does not
    depend on who computed what.

    Args:
        rank: number of this process.
        count: of processes.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank = rank
        self.count = count

    @classmethod
    def join(cls) -> Workers:
        """The processes of the launcher that set WORLD_SIZE, talking over gloo; else just one."""
        if cls.launched() == 1:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group("gloo", timeout=PATIENCE)
        return cls(dist.get_rank(), dist.get_world_size())

    def leave(self) -> None:
        """End the talk between the processes."""
        if self.count > 1:
            dist.destroy_process_group()

    @staticmethod
    def launched() -> int:
        """How many processes the launcher started."""
        return int(os.environ.get("WORLD_SIZE", "1"))

    def place(self, device: str | None = None) -> str | None:
        """The device of this process; a GPU is made the current one, where kernels are launched.

        Args:
            device: that is asked for. Where a launcher started several processes, `cuda` and None
                are a GPU of its own for each process of a host.

        Returns:
            The device; None if there is nothing to choose.
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
        """Whether this process is the one that times, prints and writes."""
        return self.rank == 0

    def open(self, folder: Path, identity: Mapping[str, Any], resume: bool) -> Work:
        """The work in a folder; arguments and errors as of `Work`.

        The first process looks whether it can be gone on with, before others add their files.
        """
        work = Work(folder, identity, resume) if self.first else None
        self._gather(None)
        return work or Work(folder, identity, True, self.rank)

    def claim(self, work: Work, key: str, identity: Mapping[str, Any]) -> None:
        """Note what the work is for, as the first process sees it; as of `Work.claim`."""
        work.claim(key, self._gather(dict(identity))[0])

    def share(
        self, work: Work, keys: Sequence[str], compute: Callable[[str], Any]
    ) -> dict[str, Any]:
        """The values of units, missing ones computed by the processes in turns.

        Args:
            work: where finished units are kept.
            keys: the units.
            compute: gives a unit's value as JSON.

        Returns:
            By key, in the order of the keys; the same in every process.
        """
        _, own = self.missing(work, keys)
        for key in own:
            work.once(key, partial(compute, key))
        values: dict[str, Any] = {}
        for found in self._gather({key: work[key] for key in keys if key in work}):
            values |= found
        for key in keys:
            if key not in work:
                work.put(key, values[key])
        return {key: values[key] for key in keys}

    def missing(self, work: Work, keys: Sequence[str]) -> tuple[list[str], list[str]]:
        """The units that no process has finished, and those of them that are this one's to do."""
        known = {key for found in self._gather([k for k in keys if k in work]) for key in found}
        missing = [key for key in keys if key not in known]
        return missing, missing[self.rank :: self.count]

    def first_only(self, work: Work, key: str, compute: Callable[[], Any]) -> Any:
        """The value of a unit that only the first process computes, such as a timing."""
        value = work.once(key, compute) if self.first else None
        value = self._gather(value)[0]
        return work.once(key, lambda: value)

    def _gather(self, value: Any) -> list[Any]:
        """The value of every process, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values
