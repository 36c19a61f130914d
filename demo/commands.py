"""The subcommand `demo` of the `ajour` command. gradio is imported when it runs, not before."""

from __future__ import annotations

from argparse import ArgumentDefaultsHelpFormatter
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `demo` to the subcommands of a parser."""
    from ajour.backends import BACKENDS
    from ajour.pipelines.commands import port

    page = commands.add_parser(
        "demo",
        help="a page to generate, compare, look at plans and search",
        formatter_class=ArgumentDefaultsHelpFormatter,
    )
    page.add_argument("--model", help="pipeline folder or Hub id; by default the bundled model")
    page.add_argument("--plan", help="plan file or Hub repository for the model")
    page.add_argument("--device", help="for example cuda; by default a GPU if there is one")
    page.add_argument("--backend", choices=BACKENDS, help="by default the fastest that can run")
    page.add_argument("--host", default="127.0.0.1", help="address to listen on")
    page.add_argument("--port", type=port, help="by default the first free port from 7860 on")
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
    from ajour.demo.app import serving
    from ajour.demo.endings import exit_on_signals
    from ajour.demo.model import find_model

    model = find_model(args.model, args.plan, args.device, args.backend)
    place = (args.host, args.port, args.share, args.open)
    with exit_on_signals(), serving(model, *place, quiet=False, names=args.name) as (page, _):
        page.block_thread()
