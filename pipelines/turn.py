"""Forward passes of one transformer take turns: two threads may not run it at the same time."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


class Turn:
    """Held from the start of a forward pass to its end; a pass of another thread waits.

    Torch calls no hook after a KeyboardInterrupt. So the turn keeps the frame that calls the hooks,
    and is free again once that frame has ended.
    """

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._thread: int | None = None
        self._frame: FrameType | None = None

    @property
    def mine(self) -> bool:
        """Whether the calling thread began the pass."""
        return self._thread == threading.get_ident()

    def begin(self) -> None:
        """Wait until no other thread is in a pass, then hold the turn."""
        frame = sys._getframe(1)
        while frame.f_back and frame.f_globals["__name__"].startswith(("ajour.", "torch._dynamo")):
            frame = frame.f_back
        with self._free:
            while not self.mine and self._runs(sys._current_frames().get(self._thread or 0)):
                self._free.wait(timeout=1.0)
            self._thread, self._frame = threading.get_ident(), frame

    def end(self) -> None:
        """Let the next thread in."""
        with self._free:
            self._thread = self._frame = None
            self._free.notify()

    def check_outside(self) -> None:
        """Raise RuntimeError if the code that calls this is part of the pass."""
        if self.mine and self.is_caller():
            raise RuntimeError(
                "ajour.disable() was called in a forward pass, whose layers still need what it "
                "takes away; call it between two passes, for example in callback_on_step_end"
            )

    def is_caller(self) -> bool:
        """Whether the code that calls this is part of the pass."""
        return self._runs(sys._getframe(1))

    def _runs(self, frame: FrameType | None) -> bool:
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        return frame is not None
