"""Simple plans to compare with: one pattern for all heads, after some dense bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ajour.search.solve import DENSE_BAND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ajour.search.solve import Choice, Problem

SHOWN = 2
"""Baselines that are verified."""

SLOWER = 1.1
"""Predicted time of a baseline over that of the plan, at most: dense bands come in steps of about
this size, and the longer time favours the baseline."""


def single_families(
    problem: Problem, names: Sequence[str], seconds: float
) -> list[tuple[str, Choice]]:
    """The best choices with one pattern throughout of about a plan's time.

    A pattern runs after as many dense bands as keep within `SLOWER` of the time, if that is of less
    error than fewer; then the patterns of least predicted error, one per family.

    Args:
        problem: what to choose from.
        names: of the candidates; what precedes the first dash is the family.
        seconds: predicted seconds of the plan to compare with.

    Returns:
        Name and choice, the best first.
    """
    found: dict[str, tuple[float, str, Choice]] = {}
    bands = len(problem.dense)
    for index, name in enumerate(names):
        for dense_bands in range(bands):
            choice = np.full(problem.errors.shape[:3], index, dtype=np.int64)
            choice[:dense_bands] = DENSE_BAND
            if problem.seconds(choice) > SLOWER * seconds:
                break
            error = problem.error(choice)
            family = name.split("-")[0]
            if family not in ("full", "skip") and (family not in found or error < found[family][0]):
                found[family] = (error, name, choice)
    ranked = sorted(found.values(), key=lambda one: one[0])
    return [(name, choice) for _, name, choice in ranked[:SHOWN]]
