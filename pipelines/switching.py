"""`enable` and `disable` of the same transformer take turns, whichever threads call them."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

_locks: WeakKeyDictionary[torch.nn.Module, threading.RLock] = WeakKeyDictionary()
_guard = threading.Lock()
"""Held while a lock is looked up."""


@contextmanager
def switching(transformers: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Within the block, no other thread switches any of these transformers on or off."""
    with _guard:
        locks = [_locks.setdefault(x, threading.RLock()) for x in sorted(transformers, key=id)]
    with ExitStack() as stack:  # in the same sequence in every thread, so that none waits in a ring
        for lock in locks:
            stack.enter_context(lock)
        yield
