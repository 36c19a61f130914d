"""Choosing one candidate per head: a multiple-choice knapsack over the whole model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

if TYPE_CHECKING:
    from numpy.typing import NDArray


def solve(
    errors: NDArray[np.float64], costs: NDArray[np.float64], budget: float
) -> NDArray[np.int64]:
    """Choose a candidate for every head: least total error within a mean cost.

    Args:
        errors: (layers, heads, C), the error of each candidate on each head.
        costs: (C,), or (layers, heads, C) where they differ between heads.
        budget: greatest mean cost of a head.

    Returns:
        (layers, heads): the index of the chosen candidate.

    Raises:
        ValueError: if even the cheapest choice costs more than the budget.
    """
    layers, heads, candidates = errors.shape
    costs = np.broadcast_to(costs, errors.shape)
    cheapest = float(costs.min(axis=-1).mean())
    if cheapest > budget:
        raise ValueError(
            f"the budget of {budget:g} cannot be met: the cheapest choice costs {cheapest:g}"
        )
    groups = layers * heads
    columns = np.arange(groups * candidates)
    one_each = csr_array((np.ones(len(columns)), (columns // candidates, columns)))
    total = csr_array(costs.reshape(1, -1))
    found = milp(
        errors.reshape(-1),
        integrality=np.ones(len(columns)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(total, -np.inf, budget * groups),
        ],
    )
    if not found.success:
        raise RuntimeError(f"the solver failed: {found.message}")
    return np.asarray(found.x.reshape(errors.shape).argmax(axis=-1))
