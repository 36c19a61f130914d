"""Hooks of an enabled transformer that a copy of it does not have."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


class Hook:
    """A hook of a module; in a copied or unpickled module it does nothing.

    Torch calls it outside of compiled graphs. So Dynamo must not see even `__call__`, a frame of
    which it would try to make a graph.

    Args:
        call: what the hook does.
    """

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call

    @torch.compiler.disable
    def __call__(self, *args: Any) -> None:
        """Do it."""
        self._call(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial, (nothing,)


def nothing(*args: Any) -> None:
    """The hook of a copy."""
