"""Lets in the events of open pages only, a few at a time, and only with plain values."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from ajour.demo.visitors import TooMany

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ajour.demo.visitors import Visitors

MOST_EVENTS = 8
"""Events of one page that may wait or run at the same time."""

MOST_EVENTS_EACH = 12
"""The same for all pages of one address; fewer than any of gradio's queues has places."""

PLAIN = (str, int, float, type(None))
"""Types of the values of form fields. A file of gradio's would be a dict."""

_SESSION = re.compile(r"[0-9A-Za-z_-]{1,64}")
_HEARTBEAT = "/gradio_api/heartbeat/"


class Refusal(Exception):
    """An event is refused: a status and the reason in words."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Door:
    """Middleware around gradio's queue.

    A browser keeps the address `heartbeat` open as long as it shows the page, and listens at
    `queue/data` while it has events. Only a session whose page is open may add events.

    Args:
        app: the application.
        visitors: keeps the open pages.
        pending: gives the sessions of all events that wait or run, one entry for each event.
    """

    def __init__(
        self, app: ASGIApp, visitors: Visitors, pending: Callable[[], Iterable[str]]
    ) -> None:
        self.app = app
        self.visitors = visitors
        self.pending = pending
        self._reading: list[str] = []
        self._entering: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        path = scope.get("path", "")
        try:
            with ExitStack() as stack:
                if path.startswith(_HEARTBEAT):
                    session = checked_session(path.removeprefix(_HEARTBEAT))
                    stack.enter_context(self.visitors.open(session, address_of(scope)))
                elif path == "/gradio_api/queue/data":
                    session = checked_session(Request(scope).query_params.get("session_hash"))
                    stack.enter_context(self.visitors.listening(session))
                elif path == "/gradio_api/queue/join":
                    receive = await self._enter(Request(scope, receive), stack)
                await self.app(scope, receive, send)
        except TooMany as error:
            await JSONResponse({"detail": str(error)}, 429)(scope, receive, send)
        except Refusal as error:
            await JSONResponse({"detail": str(error)}, error.status)(scope, receive, send)
        except ClientDisconnect:
            pass  # the visitor left before the event was sent

    async def _enter(self, request: Request, stack: ExitStack) -> Receive:
        """Read an event and check it; returns what the application reads it from.

        Args:
            request: the event.
            stack: is left when the request is handled.

        Raises:
            Refusal: if it is not plain values of an open page, or there are too many events.
        """
        address = address_of(request.scope)
        if self._reading.count(address) >= MOST_EVENTS_EACH:
            raise too_many()
        self._reading.append(address)
        stack.callback(self._reading.remove, address)
        body = await request.body()
        try:
            session = checked_event(await request.json())
        except (ValueError, RecursionError) as error:
            raise Refusal(400, f"an event must be JSON: {error}") from None
        end = time.monotonic() + self.visitors.patience
        while not self.visitors.is_open(session):  # its heartbeat may be on the way
            if time.monotonic() >= end:
                raise Refusal(403, "no page is open that could show the results; load the page")
            await asyncio.sleep(0.05)
        self._count(session)
        self._entering.append(session)  # until it is one of the pending
        stack.callback(self._entering.remove, session)
        sent = False

        async def receive() -> Message:
            nonlocal sent
            if sent:
                return await request.receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        return receive

    def _count(self, session: str) -> None:
        """Raise Refusal if a page, or its address, has too many events already."""
        pending = [*self.pending(), *self._entering]
        address = self.visitors.address(session)
        each = sum(self.visitors.address(other) == address for other in pending)
        if pending.count(session) >= MOST_EVENTS or each >= MOST_EVENTS_EACH:
            raise too_many()


def too_many() -> Refusal:
    """The refusal of an event of a page, or an address, that has enough."""
    return Refusal(
        429,
        f"at most {MOST_EVENTS} events of a page and {MOST_EVENTS_EACH} of an address may wait or "
        "run at the same time; wait for one to end",
    )


def checked_session(session: Any) -> str:
    """A session's name.

    Raises:
        Refusal: if it is not a name.
    """
    if not isinstance(session, str) or not _SESSION.fullmatch(session):
        raise Refusal(400, f"a session is 1 to 64 letters and digits, got {session!r:.80}")
    return session


def checked_event(event: Any) -> str:
    """The session of an event.

    Raises:
        Refusal: if a value of the event is not a text, a number or nothing. gradio would fetch a
            file that a value names, whatever the field is.
    """
    data = event.get("data") if isinstance(event, dict) else None
    if not isinstance(data, list) or not all(isinstance(value, PLAIN) for value in data):
        raise Refusal(400, "the values of an event must be texts and numbers, no files")
    return checked_session(event.get("session_hash"))


def address_of(scope: Scope) -> str:
    """The address of the client of a request."""
    client = scope.get("client")
    return client[0] if client else ""
