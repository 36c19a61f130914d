"""Ending the server from outside in the same way as with Ctrl-C, so that its files are deleted."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
"""What ends a process when it is told to end, or when its terminal is closed."""


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Within the block, signals that end the process raise SystemExit. Main thread only."""
    before = {number: signal.signal(number, _exit) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(number: int, _frame: Any) -> NoReturn:
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)  # nothing interrupts the clean-up
    raise SystemExit(128 + number)
