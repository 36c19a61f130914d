"""The `ajour` command: all subcommands, their errors and exit codes."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import traceback
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from ajour import __version__
from ajour.demo.commands import add_commands as add_demo_command
from ajour.pipelines.commands import add_commands
from ajour.pipelines.usage import BadUsage
from ajour.quoting import shortened
from ajour.search.commands import TargetMissed
from ajour.search.commands import add_commands as add_search_commands

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_FAILED, EXIT_USAGE, EXIT_MISSED, EXIT_INTERRUPTED = 1, 2, 3, 130

ADD_COMMANDS = (add_commands, add_search_commands, add_demo_command)
"""Add subcommands, whose `run` takes the parsed arguments."""

LONGEST = 1000
"""Most characters of a message: some libraries print whole tables."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand, by default with the arguments of the process.

    Returns:
        0; 1 if the job failed, with the reason in one line on stderr; 2 for bad usage, as argparse
        does; 3 if a search missed its target and wrote its best plan; 130 after Ctrl-C.
        With AJOUR_TRACEBACK=1 in the environment, a traceback comes before the reason.
    """
    parser = argparse.ArgumentParser(prog="ajour", description="Sparse attention for diffusers.")
    parser.add_argument("--version", action="version", version=version_line())
    commands = parser.add_subparsers(dest="command", required=True)
    for add in ADD_COMMANDS:
        add(commands)
    args = parser.parse_args(argv)
    try:
        args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        print(f"ajour: {str(stop) or 'interrupted'}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except TargetMissed as missed:
        print(f"ajour {args.command}: {missed}", file=sys.stderr)
        return EXIT_MISSED
    except BrokenPipeError:  # the reader of the output has ended, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except BadUsage as error:
        print(f"ajour {args.command}: {in_a_line(error)}", file=sys.stderr)
        return EXIT_USAGE
    except Exception as error:
        if os.environ.get("AJOUR_TRACEBACK") == "1":
            traceback.print_exc()
        print(f"ajour {args.command}: {in_a_line(error)}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def version_line() -> str:
    """The versions of ajour and of what it runs on, without importing them."""
    found = []
    for name in ("torch", "diffusers"):
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return f"ajour {__version__} (Python {platform.python_version()}, {', '.join(found)})"


def in_a_line(error: Exception) -> str:
    """What went wrong, in a line.

    Errors of these kinds have messages that are meant to be read; others are named by their kind.
    """
    text = str(error).encode("utf-8", "backslashreplace").decode()
    if isinstance(error, MemoryError):
        text = f"not enough memory{': ' if text else ''}{text}"
    elif isinstance(error, RecursionError) or not isinstance(
        error, OSError | RuntimeError | TypeError | ValueError
    ):
        text = f"{type(error).__name__}{': ' if text else ''}{text}"
    return shortened(text or type(error).__name__, LONGEST)


if __name__ == "__main__":
    sys.exit(main())
