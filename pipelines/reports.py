"""What an enabled transformer has to say: why something ran dense, what a plan was made for."""

from __future__ import annotations

import logging

logger = logging.getLogger("ajour")


class Reports:
    """Reasons and notes, each logged once.

    Args:
        strict: raise instead of running dense.

    Attributes:
        fallbacks: why attention ran dense although the plan says otherwise.
        notes: what differs from what a plan was verified on.
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
