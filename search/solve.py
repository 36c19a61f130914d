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
class Group:
    """Candidates that cost something once in every layer where any head has one of them.

    Attributes:
        members: bool (C,).
        seconds: (bands,), in all steps of a band.
    """

    members: NDArray[np.bool_]
    seconds: NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """What to choose from.

    Attributes:
        errors: (bands, layers, heads, C), the error of each candidate on each head, in a unit that
            adds up over everything.
        costs: (bands, C), seconds of a head under each candidate in all steps of a band.
        fixed: (bands,), seconds of a band beyond its heads if it runs sparse.
        dense: (bands,), seconds of a band that runs dense, without error.
        groups: what layers pay once, however many of their heads have a candidate.
        unit: `s`, or `density` where shares of dense attention stand in place of seconds.
    """

    errors: NDArray[np.float64]
    costs: NDArray[np.float64]
    fixed: NDArray[np.float64]
    dense: NDArray[np.float64]
    groups: tuple[Group, ...] = ()
    unit: str = "s"

    @property
    def members(self) -> NDArray[np.bool_]:
        """Of the groups: bool (G, C)."""
        own = [group.members for group in self.groups]
        return np.array(own, dtype=bool).reshape(len(own), self.errors.shape[-1])

    @property
    def opening(self) -> NDArray[np.float64]:
        """Seconds of the groups: (bands, G)."""
        own = [group.seconds for group in self.groups]
        return np.array(own, dtype=float).reshape(len(own), len(self.errors)).T

    def told(self, cost: float) -> str:
        """A cost for people, in its unit."""
        if self.unit == "density":
            return f"density {cost / float(self.dense.sum()):.4g}"
        return f"{cost:.4g} s"

    def seconds(self, choice: Choice) -> float:
        """Predicted seconds of a choice."""
        dense = (choice == DENSE_BAND).all(axis=(1, 2))
        spent = self.fixed + self._layers(np.maximum(choice, 0)).sum(axis=1)
        return float(np.where(dense, self.dense, spent).sum())

    def error(self, choice: Choice) -> float:
        """Predicted error of a choice."""
        return float(self._errors(np.maximum(choice, 0))[choice != DENSE_BAND].sum())

    def relaxed(self, price: float) -> Choice:
        """The choice of least error + price * seconds.

        It is on the frontier for every price, with several groups nearly so: the heads of a layer
        then choose one after the other, given the others. Each group of more than one is tried as
        open, and banned.
        """
        everything = np.zeros(self.errors.shape[-1], dtype=bool)
        shared = [
            group.members for group in self.groups if 1 < group.members.sum() < len(everything)
        ]
        best = self._descend(price, everything)
        for banned in shared:
            choice = self._descend(price, banned)
            better = self._value(choice, price) < self._value(best, price)
            best = np.where(better[..., None], choice, best)
        for band in range(len(best)):
            sparse = np.full_like(best, DENSE_BAND)
            sparse[band] = best[band]
            spent = self.seconds(sparse) - self.dense.sum()
            if self.error(sparse) + price * spent >= 0:
                best[band] = DENSE_BAND
        return np.asarray(best)

    def _descend(self, price: float, banned: NDArray[np.bool_]) -> Choice:
        """Every head's best candidate but for banned ones, given the others of its layer."""
        members, opening = self.members, self.opening
        single = members.sum(axis=1) == 1
        alone = self.costs + opening[:, single] @ members[single]
        errors = np.where(banned, np.inf, self.errors)
        choice = (errors + price * alone[:, None, None]).argmin(axis=-1)
        for head in list(range(choice.shape[2])) * (SWEEPS if len(self.groups) > 1 else 0):
            closed = ~self._opened(np.delete(choice, head, axis=2))
            costs = self.costs[:, None] + (closed * opening[:, None]) @ members
            choice[:, :, head] = (errors[:, :, head] + price * costs).argmin(axis=-1)
        return choice

    def _value(self, choice: Choice, price: float) -> NDArray[np.float64]:
        """Error + price * seconds of each layer: (bands, layers)."""
        return self._errors(choice).sum(axis=2) + price * self._layers(choice)

    def _errors(self, choice: Choice) -> NDArray[np.float64]:
        """The error of each head: (bands, layers, heads)."""
        return np.take_along_axis(self.errors, choice[..., None], -1)[..., 0]

    def _layers(self, choice: Choice) -> NDArray[np.float64]:
        """Seconds of each layer: (bands, layers)."""
        heads = self.costs[np.arange(len(choice))[:, None, None], choice].sum(axis=2)
        return np.asarray(heads + (self._opened(choice) * self.opening[:, None]).sum(axis=2))

    def _opened(self, choice: Choice) -> NDArray[np.bool_]:
        """Whether any head of a layer has a member of a group: (bands, layers, G)."""
        used = (choice[..., None] == np.arange(self.errors.shape[-1])).any(axis=2)
        return np.asarray((used[:, :, None] & self.members).any(axis=-1))


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

    bands, layers, heads, _ = problem.errors.shape
    members, opening = problem.members, problem.opening
    cheapest = (heads * problem.costs + opening @ members).min(axis=1)
    least = float(np.minimum(problem.fixed + layers * cheapest, problem.dense).sum())
    if least > budget:
        raise ValueError(
            f"a budget of {problem.told(budget)} cannot be met: the cheapest choice has "
            f"{problem.told(least)}"
        )
    useful = _useful(problem)
    band, layer, head, candidate = useful.nonzero()
    # Variables: the useful candidates of every head; the groups of every layer; whether a band
    # runs sparse. In a band that does, every head has one candidate.
    group, member = members[:, candidate].nonzero()
    own = np.ravel_multi_index(
        (band[member], layer[member], group), (bands, layers, len(members) + 1)
    )
    opened, place = np.unique(own, return_inverse=True)
    singles, total = len(candidate), len(candidate) + len(opened)
    every = np.arange(bands * layers * heads)
    rows = np.concatenate([(band * layers + layer) * heads + head, every])
    columns = np.concatenate([np.arange(singles), total + every // (layers * heads)])
    signs = np.concatenate([np.ones(singles), -np.ones(len(every))])
    one_each = csr_array((signs, (rows, columns)), shape=(len(every), total + bands))
    once = opening[opened // (layers * (len(members) + 1)), opened % (len(members) + 1)]
    spent = np.concatenate([problem.costs[band, candidate], once, problem.fixed - problem.dense])
    error = np.concatenate([problem.errors[useful], np.zeros(total + bands - singles)])
    constraints = [
        LinearConstraint(one_each, 0, 0),
        LinearConstraint(spent[None], -np.inf, budget - problem.dense.sum()),
    ]
    if len(opened):  # a head has a member of a group only if its layer has the group
        pairs, row = np.unique(place * heads + head[member], return_inverse=True)
        rows = np.concatenate([row, np.arange(len(pairs))])
        columns = np.concatenate([member, singles + pairs // heads])
        signs = np.concatenate([np.ones(len(row)), -np.ones(len(pairs))])
        only_if = csr_array((signs, (rows, columns)), shape=(len(pairs), total + bands))
        constraints.append(LinearConstraint(only_if, -np.inf, 0))
    found = milp(
        error / (error.max() or 1.0),
        integrality=np.ones(len(error)),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": 1e-3 if len(opened) else 1e-4},
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
    members = problem.members.astype(float)
    for band, columns in enumerate(order):
        errors, costs = problem.errors[band], problem.costs[band]
        # What one candidate may open that another one does not: (C, C).
        opened = (members.T * problem.opening[band]) @ (1 - members)
        for place, column in enumerate(columns):
            before = columns[:place]
            cheaper = before[costs[before] + opened[before, column] <= costs[column]]
            if len(cheaper):
                useful[band][..., column] = errors[..., column] < errors[..., cheaper].min(-1)
    return useful
