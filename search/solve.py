"""Choosing one candidate per head and band of steps: a multiple-choice knapsack over everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

DENSE_BAND = -1
"""The choice of every head of a band that runs stock attention."""

Choice = NDArray[np.int64]
"""(bands, layers, heads): index of the chosen candidate, or DENSE_BAND throughout a band."""


@dataclass(frozen=True)
class Problem:
    """What to choose from.

    Attributes:
        errors: (bands, layers, heads, C), the error of each candidate on each head, in a unit that
            adds up over everything.
        costs: (bands, C), seconds of a head under each candidate in all steps of a band.
        fixed: (bands,), seconds of a band beyond its heads if it runs sparse.
        dense: (bands,), seconds of a band that runs dense, without error.
    """

    errors: NDArray[np.float64]
    costs: NDArray[np.float64]
    fixed: NDArray[np.float64]
    dense: NDArray[np.float64]

    def seconds(self, choice: Choice) -> float:
        """Predicted seconds of a choice."""
        total = 0.0
        for band, picked in enumerate(choice):
            if (picked == DENSE_BAND).all():
                total += float(self.dense[band])
            else:
                total += float(self.fixed[band] + self.costs[band][picked].sum())
        return total

    def error(self, choice: Choice) -> float:
        """Predicted error of a choice."""
        picked = np.take_along_axis(self.errors, np.maximum(choice, 0)[..., None], -1)[..., 0]
        return float(picked[choice != DENSE_BAND].sum())

    def relaxed(self, price: float) -> Choice:
        """The choice of least error + price * seconds: on the frontier for every price."""
        value = self.errors + price * self.costs[:, None, None, :]
        choice = value.argmin(axis=-1)
        sparse = value.min(axis=-1).sum(axis=(1, 2)) + price * self.fixed
        choice[sparse >= price * self.dense] = DENSE_BAND
        return np.asarray(choice)


def frontier(problem: Problem, points: int = 48) -> Iterator[Choice]:
    """The best choices from all dense to the cheapest, by a sweep of the Lagrangian's price.

    Yields:
        Different choices, each faster than the one before.
    """
    before = np.inf
    scale = problem.errors.max() / max(problem.costs.max(), 1e-30)
    for price in np.geomspace(1e-9, 1e3, 4 * points) * scale:
        choice = problem.relaxed(price)
        spent = problem.seconds(choice)
        if spent < before:
            before = spent
            yield choice


def solve(problem: Problem, budget: float) -> Choice:
    """The choice of least error within a budget.

    Args:
        problem: what to choose from.
        budget: seconds.

    Returns:
        The choice; the same for the same input.

    Raises:
        ValueError: if even the cheapest choice costs more than the budget.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    bands, layers, heads, _ = problem.errors.shape
    cheapest = problem.fixed + layers * heads * problem.costs.min(axis=1)
    least = float(np.minimum(cheapest, problem.dense).sum())
    if least > budget:
        raise ValueError(
            f"the budget of {budget:.4g} s cannot be met: the cheapest choice costs {least:.4g} s"
        )
    useful = _useful(problem)
    band, layer, head, candidate = useful.nonzero()
    count, groups = len(band), bands * layers * heads
    # Variables: the useful candidates of every head, then whether a band runs sparse. In a band
    # that does, every head has one candidate, in others none.
    every = np.arange(groups)
    group = np.concatenate([(band * layers + layer) * heads + head, every])
    column = np.concatenate([np.arange(count), count + every // (layers * heads)])
    signs = np.concatenate([np.ones(count), -np.ones(groups)])
    one_each = csr_array((signs, (group, column)))
    spent = np.concatenate([problem.costs[band, candidate], problem.fixed - problem.dense])
    error = np.concatenate([problem.errors[useful], np.zeros(bands)])
    scale = error.max() or 1.0
    found = milp(
        error / scale,
        integrality=np.ones(len(error)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 0, 0),
            LinearConstraint(spent[None], -np.inf, budget - problem.dense.sum()),
        ],
        options={"mip_rel_gap": 1e-4},
    )
    if not found.success:
        raise RuntimeError(f"the solver failed: {found.message}")
    weights = np.zeros(problem.errors.shape)
    weights[useful] = found.x[:count]
    choice = weights.argmax(axis=-1)
    choice[found.x[count:] < 0.5] = DENSE_BAND
    return np.asarray(choice)


def _useful(problem: Problem) -> NDArray[np.bool_]:
    """Candidates that no other beats in both error and cost: bool, shaped as the errors."""
    order = np.argsort(problem.costs, axis=1, kind="stable")
    useful = np.zeros(problem.errors.shape, dtype=bool)
    for band, columns in enumerate(order):
        errors = problem.errors[band][..., columns]
        best = np.minimum.accumulate(errors, axis=-1)
        useful[band][..., columns[0]] = True
        useful[band][..., columns[1:]] = errors[..., 1:] < best[..., :-1]
    return useful
