"""Choosing one candidate per head and band of steps: a multiple-choice knapsack over everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

SWEEPS = 3
"""Times that every head of a layer chooses again, given the others."""

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
        first: what the first head of a candidate in a layer costs beyond a further one, as a
            share of `costs`.
        unit: `s`, or `density` where shares of dense attention stand in place of seconds.
    """

    errors: NDArray[np.float64]
    costs: NDArray[np.float64]
    fixed: NDArray[np.float64]
    dense: NDArray[np.float64]
    first: float = 0.0
    unit: str = "s"

    def told(self, cost: float) -> str:
        """A cost for people, in its unit."""
        if self.unit == "density":
            return f"density {cost / float(self.dense.sum()):.4g}"
        return f"{cost:.4g} s"

    def seconds(self, choice: Choice) -> float:
        """Predicted seconds of a choice."""
        total = 0.0
        for band, picked in enumerate(choice):
            if (picked == DENSE_BAND).all():
                total += float(self.dense[band])
            else:
                costs = self.costs[band]
                once = sum(costs[np.unique(row)].sum() for row in picked) if self.first else 0.0
                total += float(self.fixed[band] + costs[picked].sum() + self.first * once)
        return total

    def error(self, choice: Choice) -> float:
        """Predicted error of a choice."""
        picked = np.take_along_axis(self.errors, np.maximum(choice, 0)[..., None], -1)[..., 0]
        return float(picked[choice != DENSE_BAND].sum())

    def relaxed(self, price: float) -> Choice:
        """The choice of least error + price * seconds.

        It is on the frontier for every price; where first heads cost more, nearly so: heads then
        choose one after the other, given the others of their layer.
        """
        prices = price * self.costs[:, None]
        choice = (self.errors + (1 + self.first) * prices[:, None]).argmin(axis=-1)
        for head in list(range(choice.shape[2])) * (SWEEPS if self.first else 0):
            others = np.delete(choice, head, axis=2)
            taken = (others[..., None] == np.arange(self.errors.shape[-1])).any(axis=2)
            value = self.errors[:, :, head] + prices * (1 + self.first * ~taken)
            choice[:, :, head] = value.argmin(axis=-1)
        for band in range(len(choice)):
            sparse = np.full_like(choice, DENSE_BAND)
            sparse[band] = choice[band]
            spent = self.seconds(sparse) - self.dense.sum()
            if self.error(sparse) + price * spent >= 0:
                choice[band] = DENSE_BAND
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
        budget: seconds, or whatever the problem's costs are.

    Returns:
        The choice; the same for the same input.

    Raises:
        ValueError: if even the cheapest choice costs more than the budget.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    bands, layers, heads, count = problem.errors.shape
    cheapest = problem.costs.min(axis=1) * (heads + problem.first)
    least = float(np.minimum(problem.fixed + layers * cheapest, problem.dense).sum())
    if least > budget:
        raise ValueError(
            f"a budget of {problem.told(budget)} cannot be met: the cheapest choice has "
            f"{problem.told(least)}"
        )
    useful = _useful(problem)
    band, layer, head, candidate = useful.nonzero()
    # Variables: the useful candidates of every head; those of every layer, if first heads count
    # apart; whether a band runs sparse. In a band that does, every head has one candidate.
    own = np.ravel_multi_index((band, layer, candidate), (bands, layers, count))
    shared, opened = np.unique(own, return_inverse=True)
    if problem.first == 0:
        shared = shared[:0]
    singles, total = len(own), len(own) + len(shared)
    groups = bands * layers * heads
    every = np.arange(groups)
    group = np.concatenate([(band * layers + layer) * heads + head, every])
    column = np.concatenate([np.arange(singles), total + every // (layers * heads)])
    signs = np.concatenate([np.ones(singles), -np.ones(groups)])
    one_each = csr_array((signs, (group, column)), shape=(groups, total + bands))
    opening = problem.first * problem.costs[shared // (layers * count), shared % count]
    spent = np.concatenate([problem.costs[band, candidate], opening, problem.fixed - problem.dense])
    error = np.concatenate([problem.errors[useful], np.zeros(total + bands - singles)])
    constraints = [
        LinearConstraint(one_each, 0, 0),
        LinearConstraint(spent[None], -np.inf, budget - problem.dense.sum()),
    ]
    if len(shared):  # a head has a candidate only if its layer does
        rows = np.tile(np.arange(singles), 2)
        columns = np.concatenate([np.arange(singles), singles + opened])
        signs = np.repeat([1.0, -1.0], singles)
        only_if = csr_array((signs, (rows, columns)), shape=(singles, total + bands))
        constraints.append(LinearConstraint(only_if, -np.inf, 0))
    found = milp(
        error / (error.max() or 1.0),
        integrality=np.ones(len(error)),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": 1e-3 if len(shared) else 1e-4},
    )
    if not found.success:
        raise RuntimeError(f"the solver failed: {found.message}")
    weights = np.zeros(problem.errors.shape)
    weights[useful] = found.x[:singles]
    choice = weights.argmax(axis=-1)
    choice[found.x[total:] < 0.5] = DENSE_BAND
    return np.asarray(choice)


def _useful(problem: Problem) -> NDArray[np.bool_]:
    """Candidates that no other beats in error and, wherever it stands, in cost.

    Returns:
        bool, shaped as the errors.
    """
    order = np.argsort(problem.costs, axis=1, kind="stable")
    useful = np.ones(problem.errors.shape, dtype=bool)
    for band, columns in enumerate(order):
        errors, costs = problem.errors[band], problem.costs[band]
        for place, column in enumerate(columns):
            before = columns[:place]
            cheaper = before[(1 + problem.first) * costs[before] <= costs[column]]
            if len(cheaper):
                useful[band][..., column] = errors[..., column] < errors[..., cheaper].min(-1)
    return useful
