"""Who has the page open and listens, and how much they may have open."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class TooMany(RuntimeError):
    """Something was refused because there is too much of it; the message gives the bound."""


class Unheard(RuntimeError):
    """A page that wants to start something does not listen to the results."""


class Visitors:
    """The open pages, by session: gradio's name for one page in one browser.

    Args:
        most: pages that may be open at the same time.
        each: pages that one address may have open.
        patience: seconds to wait for a page that is about to open or to listen.
    """

    def __init__(self, most: int = 64, each: int = 16, patience: float = 10.0) -> None:
        self.patience = patience
        self._most, self._each = most, each
        self._pages: list[tuple[str, str]] = []
        self._listeners: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def open(self, session: str, address: str) -> Iterator[None]:
        """Within the block, a page is open.

        Args:
            session: of the page.
            address: of the visitor.

        Raises:
            TooMany: if too many pages are open, from this address or in all.
        """
        page = (session, address)
        with self._changed:
            if len(self._pages) >= self._most:
                raise TooMany(f"{self._most} pages are open; try again later")
            if sum(address == other for _, other in self._pages) >= self._each:
                raise TooMany(f"{self._each} pages are open from this address; close one of them")
            self._pages.append(page)
        try:
            yield
        finally:
            with self._changed:
                self._pages.remove(page)

    @contextmanager
    def listening(self, session: str) -> Iterator[None]:
        """Within the block, a page listens to the results of its events."""
        with self._changed:
            self._listeners[session] += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._listeners[session] -= 1
                self._listeners += Counter()  # drops the sessions that have no listener left

    def is_open(self, session: str) -> bool:
        """Whether a page of the session is open."""
        return self.address(session) is not None

    def address(self, session: str) -> str | None:
        """The address from which a session's page was opened; None if none is open."""
        with self._changed:
            return next((address for name, address in self._pages if name == session), None)

    def wait_for_listener(self, session: str) -> None:
        """Wait until a page listens.

        Raises:
            Unheard: if it does not in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._listeners[session] > 0, self.patience):
                raise Unheard("the page does not listen to what it starts; load it again")
