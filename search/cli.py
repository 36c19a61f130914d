"""The `ajour` command: all subcommands, their errors and exit codes."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ajour.demo.commands import add_commands as add_demo_command
from ajour.pipelines.commands import add_commands
from ajour.search.commands import TargetMissed
from ajour.search.commands import add_commands as add_search_commands

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_FAILED, EXIT_MISSED, EXIT_INTERRUPTED = 1, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand, by default with the arguments of the process.

    Returns:
        0; 1 if the job failed, with the reason on stderr; 3 if a search missed its target and
        wrote its best plan; 130 after Ctrl-C. Bad usage exits with 2, see argparse.
    """
    parser = argparse.ArgumentParser(prog="ajour", description="Sparse attention for diffusers.")
    commands = parser.add_subparsers(dest="command", required=True)
    for add in (add_commands, add_search_commands, add_demo_command):
        add(commands)  # subcommands whose `run` takes the parsed arguments
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except KeyboardInterrupt as stop:
        print(f"ajour: {str(stop) or 'interrupted'}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except TargetMissed as missed:
        print(f"ajour {args.command}: {missed}", file=sys.stderr)
        return EXIT_MISSED
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # PlanError is a ValueError
        print(f"ajour {args.command}: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
