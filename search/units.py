"""Reading values of finished work: numbers and arrays of a known form."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


def array(value: Any, shape: Sequence[int]) -> NDArray[np.float64]:
    """An array from nested lists of finite numbers.

    Raises:
        ValueError: if the value has another shape or holds anything else.
    """
    found = np.array(value, dtype=object)
    if found.shape != tuple(shape):
        raise ValueError(f"its shape must be {tuple(shape)}, got {found.shape}")
    return np.array([number(x) for x in found.flat], dtype=np.float64).reshape(found.shape)


def number(value: Any, least: float = -math.inf) -> float:
    """A finite number of at least `least`.

    Raises:
        ValueError: if the value is anything else.
    """
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or value < least:
        bound = "" if least == -math.inf else f" of at least {least:g}"
        raise ValueError(f"a finite number{bound} is needed, got {quoted(value)}")
    return float(value)


def count(value: Any) -> int:
    """An integer of at least 1.

    Raises:
        ValueError: if the value is anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"an integer of at least 1 is needed, got {quoted(value)}")
    return value


def entries(data: Any, names: Sequence[str]) -> Mapping[str, Any]:
    """An object with just these keys.

    Raises:
        ValueError: if keys are missing or unknown, or the data is no object.
    """
    if not isinstance(data, dict) or set(data) != set(names):
        raise ValueError(f"an object of {', '.join(names)} is needed, got {quoted(data)}")
    return data
