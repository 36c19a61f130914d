"""The subcommand `demo` of the `ajour` command. gradio is imported when it runs, not before."""

from __future__ import annotations

import socket
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ajour.pipelines.options import add_backend, port

if TYPE_CHECKING:
    import argparse


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `demo` to the subcommands of a parser."""
    page = commands.add_parser("demo", help="a page to generate, compare, look at plans and search")
    page.add_argument(
        "--model",
        metavar="PATH_OR_ID",
        help="folder or Hub id of a pipeline; the bundled model if left out",
    )
    page.add_argument("--plan", metavar="PLAN", help="plan file or Hub repository for the model")
    page.add_argument(
        "--device", help="device to run on, such as cuda or cpu; if left out, a GPU if there is one"
    )
    add_backend(page)
    page.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default: %(default)s)",
    )
    page.add_argument(
        "--port", type=port, metavar="N", help="if left out, the first free port from 7860 on"
    )
    page.add_argument(
        "--name", action="append", default=[], metavar="HOST",
        help="host name by which visitors reach the page, for example demo.example.org; may be "
        "repeated. Numeric addresses, localhost and this machine's name always work",
    )  # fmt: skip
    page.add_argument("--share", action="store_true", help="also at a public gradio.live address")
    page.add_argument("--open", action="store_true", help="open a browser")
    page.set_defaults(run=_demo)


def _demo(args: argparse.Namespace) -> None:
    if find_spec("gradio") is None:
        raise RuntimeError("the page needs gradio: from a clone, pip install '.[demo]'")
    from ajour.pipelines.bundled import check_model
    from ajour.pipelines.devices import check_device

    check_device(args.device)
    check_model(args.model)
    check_address(args.host, args.port)
    from ajour.demo.app import serving
    from ajour.demo.endings import exit_on_signals
    from ajour.demo.model import find_model

    model = find_model(args.model, args.plan, args.device, args.backend)
    place = (args.host, args.port, args.share, args.open)
    with exit_on_signals(), serving(model, *place, quiet=False, names=args.name) as (page, _):
        page.block_thread()


def check_address(host: str, port: int | None) -> None:
    """Check that the page can listen at an address, before anything is loaded.

    Args:
        host: name or number.
        port: of TCP; None for any.

    Raises:
        OSError: if it cannot, with the reason.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port or 0, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        place = f"port {port} of {host}" if port else host
        raise OSError(
            f"cannot listen on {place}: {reason.lower()}; give another --host or --port"
        ) from error
