"""Which requests are answered at all, and what browsers may do with the answers."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; frame-ancestors 'none'"
)
"""Everything comes from this server. gradio builds templates from strings, so eval is allowed."""

READ = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/(assets|static|svelte)/.*"
    r"|/gradio_api/(info|startup-events|theme\.css|queue/data|heartbeat/[^/]+|file=.*)"
)
"""What the page reads."""

WRITE = re.compile(r"/gradio_api/queue/join")
"""What the page writes: events for the queue. gradio's other ways to send events and files are
closed."""

_FETCH = re.compile(r"(/file=|/proxy=)\s*[a-z]+:", re.IGNORECASE)


class Guard:
    """Answers only what the page needs, and sends the policy with every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: list[Any] = message.setdefault("headers", [])
                headers.append((b"content-security-policy", POLICY.encode()))
                headers.append((b"x-content-type-options", b"nosniff"))
                headers.append((b"referrer-policy", b"no-referrer"))
            await send(message)

        if _FETCH.search(unquote(scope["path"])):
            refusal = PlainTextResponse("this server fetches nothing from elsewhere", 403)
            await refusal(scope, receive, answer)
        elif not is_needed(scope.get("method", ""), scope["path"]):
            await PlainTextResponse("this server has no such page", 404)(scope, receive, answer)
        else:
            await self.app(scope, receive, answer)


def is_needed(method: str, path: str) -> bool:
    """Whether the page sends requests with this method to this path."""
    paths = {"GET": READ, "HEAD": READ, "POST": WRITE}.get(method)
    return paths is not None and paths.fullmatch(path) is not None


class KnownHost(TrustedHostMiddleware):
    """Refuses requests for a host name that is not ours; numeric addresses are always allowed.

    Otherwise another site could point its name to this machine (DNS rebinding), and its scripts
    could read the page. No site's name is a numeric address.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http" and is_address(Headers(scope=scope).get("host", "")):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def is_address(host: str) -> bool:
    """Whether a Host header is a numeric address, with or without a port."""
    match = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([0-9.]+))(?::\d+)?", host.lower())
    try:
        return match is not None and bool(ipaddress.ip_address(match[1] or match[2]))
    except ValueError:
        return False


def host_names(host: str, share: bool, names: Iterable[str]) -> list[str]:
    """The names by which the page may be reached.

    Args:
        host: the address or name that the server listens on.
        share: whether the page is also at a public address of gradio's.
        names: other names.
    """
    machine = socket.gethostname()
    shared = ["*.gradio.live"] if share else []
    return ["localhost", host, machine, f"{machine}.local", *shared, *names]
