"""One candidate per head and band of steps: a multiple-choice knapsack over everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ajour.search.solve.problem import DENSE_BAND

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ajour.search.solve.problem import Choice, Problem


def prices(problem: Problem, count: int) -> NDArray[np.float64]:
    """Errors that a second may be worth, from all dense to the cheapest choice."""
    scale = problem.errors.max() / max(problem.costs.max(), 1e-30)
    return np.asarray(np.geomspace(1e-9, 1e3, count) * scale)


def least(problem: Problem) -> float:
    """What the cheapest choice costs."""
    _, layers, heads, _ = problem.errors.shape
    cheapest = (heads * problem.costs + problem.group_seconds @ problem.members).min(axis=1)
    return float(np.minimum(problem.fixed + layers * cheapest, problem.dense).sum())


def solve(problem: Problem, budget: float) -> Choice:
    """The choice of least error within a budget in the unit of the problem's costs.

    Raises:
        ValueError: if even the cheapest choice costs more than the budget.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, eye_array, hstack, kron, vstack

    bands, layers, heads, count = problem.errors.shape
    members, group_seconds = problem.members, problem.group_seconds
    if (cheapest := least(problem)) > budget:
        raise ValueError(
            f"a budget of {problem.in_words(budget)} cannot be met: the cheapest choice has "
            f"{problem.in_words(cheapest)}"
        )
    useful = _useful(problem)
    band, _, _, candidate = useful.nonzero()
    # Variables: the useful candidates of every head; the groups of every layer; whether a band
    # runs sparse. In a sparse band every head has one candidate.
    singles, groups = len(candidate), bands * layers * len(members)
    one_each = hstack(
        [
            csr_array(kron(eye_array(useful[..., 0].size), np.ones((1, count))))[:, useful.ravel()],
            csr_array((useful[..., 0].size, groups)),
            -kron(eye_array(bands), np.ones((layers * heads, 1))),
        ]
    )
    once = np.repeat(group_seconds, layers, axis=0).ravel()
    seconds = np.concatenate([problem.costs[band, candidate], once, problem.fixed - problem.dense])
    error = np.concatenate([problem.errors[useful], np.zeros(groups + bands)])
    constraints = [
        LinearConstraint(one_each, 0, 0),
        LinearConstraint(seconds[None], -np.inf, budget - problem.dense.sum()),
    ]
    if groups:  # a head has a member of a group only if its layer has the group
        of_layer = vstack([kron(eye_array(heads), row[None]) for row in members])
        has = csr_array(kron(eye_array(bands * layers), of_layer))[:, useful.ravel()]
        pays = kron(eye_array(groups), np.ones((heads, 1)))
        only_if = hstack([has, -pays, csr_array((groups * heads, bands))])
        constraints.append(LinearConstraint(only_if, -np.inf, 0))
    result = milp(
        error / (error.max() or 1.0),
        integrality=np.ones(len(error)),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": 1e-3 if groups else 1e-4},
    )
    if not result.success:
        raise RuntimeError(f"the solver failed: {result.message}")
    weights = np.zeros(problem.errors.shape)
    weights[useful] = result.x[:singles]
    choice = weights.argmax(axis=-1)
    choice[result.x[singles + groups :] < 0.5] = DENSE_BAND
    return np.asarray(choice)


def _useful(problem: Problem) -> NDArray[np.bool_]:
    """Candidates that are better in error than every candidate that cannot cost more.

    Bool, shaped like the errors.
    """
    order = np.argsort(problem.costs, axis=1, kind="stable")
    useful = np.ones(problem.errors.shape, dtype=bool)
    members = problem.members.astype(float)
    for band, columns in enumerate(order):
        errors, costs = problem.errors[band], problem.costs[band]
        # Seconds of groups that one candidate may open and another one does not: (C, C).
        opened = (members.T * problem.group_seconds[band]) @ (1 - members)
        for place, column in enumerate(columns):
            before = columns[:place]
            cheaper = before[costs[before] + opened[before, column] <= costs[column]]
            if len(cheaper):
                useful[band][..., column] = errors[..., column] < errors[..., cheaper].min(-1)
    return useful
