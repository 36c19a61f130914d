"""Forward passes of one transformer take turns: two threads may not run it at the same time."""

from __future__ import annotations

import threading


class Turn:
    """Held from the start of a forward pass to its end.

    A pass of another thread waits. A thread that ended in the middle of a pass does not hold up
    others, and one that broke off a pass can start the next.
    """

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._owner: threading.Thread | None = None

    def begin(self) -> None:
        """Wait until no other thread is in a pass, then hold the turn."""
        me = threading.current_thread()
        with self._free:
            while self._owner not in (None, me) and self._owner.is_alive():
                self._free.wait(timeout=1.0)
            self._owner = me

    def end(self) -> None:
        """Let the next thread in."""
        with self._free:
            self._owner = None
            self._free.notify()
