"""Hooks of an enabled transformer that a copy of it does not have."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


class Hook:
    """A hook of a module; in a copied or unpickled module it does nothing.

    Args:
        call: what the hook does; torch.compile leaves it alone.
    """

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = torch.compiler.disable(call)

    def __call__(self, *args: Any) -> None:
        """Do it."""
        self._call(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial, (nothing,)


def nothing(*args: Any) -> None:
    """The hook of a copy."""
