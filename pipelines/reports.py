"""What an enabled transformer has to say: why something ran dense, what a plan was made for."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from ajour.pipelines.machine import device_name

if TYPE_CHECKING:
    import torch

    from ajour.grid import TokenGrid
    from ajour.plan import Plan

logger = logging.getLogger("ajour")


class Reports:
    """Reasons and notes, each logged once.

    Args:
        strict: raise instead of running dense.

    Attributes:
        fallbacks: why attention ran dense although the plan says otherwise.
        notes: what else to know, such as what differs from what a plan was verified on.
    """

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.fallbacks: list[str] = []
        self.notes: list[str] = []

    def fall_back(self, reason: str) -> None:
        """Say once that attention runs dense.

        Raises:
            RuntimeError: under `strict`.
        """
        if self.strict:
            raise RuntimeError(f"strict: attention would run dense: {reason}")
        if reason not in self.fallbacks:
            self.fallbacks.append(reason)
            logger.warning("attention runs dense (stock): %s", reason)

    def note(self, text: str) -> None:
        """Say something once."""
        if text not in self.notes:
            self.notes.append(text)
            logger.warning(text)

    def note_unverified(self, plan: Plan | None, grid: TokenGrid, device: torch.device) -> None:
        """Say once what a searched plan was verified on that is different here."""
        made = {} if plan is None else plan.provenance
        if "verified" not in made:
            return
        shape = str(replace(grid, before=0, after=0))
        for key, value in (("grid", shape), ("device", device_name(device))):
            there = str(made.get(key)).split(" + ")[0]  # a grid may have any exact tokens
            if key in made and there != value:
                self.note(f"the plan was verified on {key} {there}, not on {value}")
