"""What a search chooses from: errors and costs of every candidate, by band, layer and head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ajour.search.timing.costs import Costs

SWEEPS = 3
"""How often every head of a layer chooses again, given the other heads."""

DENSE_BAND = -1
"""The choice of every head of a band that runs stock attention."""

MOST_SHARED = 20_000
"""Number of errors up to which the first head of a pattern in a layer costs more than further
heads. Solving takes longer then; beyond, all heads cost as much as the first."""

Choice = NDArray[np.int64]
"""(bands, layers, heads): index of the chosen candidate, or DENSE_BAND throughout a band."""


class Group(NamedTuple):
    """Candidates, bool (C,), and what a layer pays once if any of its heads has one: (bands,)."""

    members: NDArray[np.bool_]
    seconds: NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """Errors and costs to choose from.

    Attributes:
        errors: (bands, layers, heads, C), the error of each candidate on each head, in a unit that
            adds up over everything.
        costs: (bands, C), seconds of a head under each candidate in all steps of a band.
        fixed: (bands,), seconds of a band beyond its heads if it runs sparse.
        dense: (bands,), seconds of a band that runs dense, without error.
        groups: costs that a layer pays once for several candidates.
        unit: `s`, or `density` where shares of dense attention stand in place of seconds.
    """

    errors: NDArray[np.float64]
    costs: NDArray[np.float64]
    fixed: NDArray[np.float64]
    dense: NDArray[np.float64]
    groups: tuple[Group, ...] = ()
    unit: str = "s"

    @property
    def dense_seconds(self) -> float:
        """Seconds of a run that is dense throughout."""
        return float(self.dense.sum())

    @property
    def members(self) -> NDArray[np.bool_]:
        """Members of the groups: bool (G, C)."""
        rows = [group.members for group in self.groups]
        return np.array(rows, dtype=bool).reshape(len(rows), self.errors.shape[-1])

    @property
    def group_seconds(self) -> NDArray[np.float64]:
        """Seconds of the groups: (bands, G)."""
        rows = [group.seconds for group in self.groups]
        return np.array(rows, dtype=float).reshape(len(rows), len(self.errors)).T

    def in_words(self, cost: float) -> str:
        """A cost with its unit."""
        if self.unit == "density":
            return f"density {cost / self.dense_seconds:.4g}"
        return f"{cost:.4g} s"

    def seconds(self, choice: Choice) -> float:
        """Predicted seconds of a choice."""
        return float(self.band_seconds(choice).sum())

    def band_seconds(self, choice: Choice) -> NDArray[np.float64]:
        """Predicted seconds of each band: (bands,)."""
        dense = (choice == DENSE_BAND).all(axis=(1, 2))
        sparse = self.fixed + self._layer_seconds(np.maximum(choice, 0)).sum(axis=1)
        return np.where(dense, self.dense, sparse)

    def error(self, choice: Choice) -> float:
        """Predicted error of a choice."""
        return float(self._head_errors(np.maximum(choice, 0))[choice != DENSE_BAND].sum())

    def band_errors(self, choice: Choice) -> NDArray[np.float64]:
        """Predicted error that each band adds: (bands,)."""
        errors = np.where(choice == DENSE_BAND, 0, self._head_errors(np.maximum(choice, 0)))
        return np.asarray(errors.sum(axis=(1, 2)))

    def decibels(self, choice: Choice) -> float:
        """Predicted signal-to-noise ratio of a choice, up to a constant."""
        return -10 * float(np.log10(max(self.error(choice), 1e-12)))

    def at_price(self, price: float) -> Choice:
        """The choice of least error + price * seconds.

        It is on the frontier for every price, with several groups nearly so: the heads of a layer
        then choose one after the other, given the others. For each group of more than one
        candidate, choosing without its members is tried too.
        """
        nothing = np.zeros(self.errors.shape[-1], dtype=bool)
        shared = [group.members for group in self.groups if 1 < group.members.sum() < len(nothing)]
        best = self._descend(price, nothing)
        for banned in shared:
            choice = self._descend(price, banned)
            better = self._value(choice, price) < self._value(best, price)
            best = np.where(better[..., None], choice, best)
        extra = price * (self.fixed - self.dense)
        best[self._value(best, price).sum(axis=1) + extra >= 0] = DENSE_BAND
        return np.asarray(best)

    def _descend(self, price: float, banned: NDArray[np.bool_]) -> Choice:
        """Every head's best candidate that is not banned, given the others of its layer."""
        members, group_seconds = self.members, self.group_seconds
        single = members.sum(axis=1) == 1
        alone = self.costs + group_seconds[:, single] @ members[single]
        errors = np.where(banned, np.inf, self.errors)
        choice = (errors + price * alone[:, None, None]).argmin(axis=-1)
        for head in list(range(choice.shape[2])) * (SWEEPS if len(self.groups) > 1 else 0):
            closed = ~self._opened(np.delete(choice, head, axis=2))
            costs = self.costs[:, None] + (closed * group_seconds[:, None]) @ members
            choice[:, :, head] = (errors[:, :, head] + price * costs).argmin(axis=-1)
        return choice

    def _value(self, choice: Choice, price: float) -> NDArray[np.float64]:
        """Error + price * seconds of each layer: (bands, layers)."""
        return self._head_errors(choice).sum(axis=2) + price * self._layer_seconds(choice)

    def _head_errors(self, choice: Choice) -> NDArray[np.float64]:
        """The error of each head: (bands, layers, heads)."""
        return np.take_along_axis(self.errors, choice[..., None], -1)[..., 0]

    def _layer_seconds(self, choice: Choice) -> NDArray[np.float64]:
        """Seconds of each layer: (bands, layers)."""
        heads = self.costs[np.arange(len(choice))[:, None, None], choice].sum(axis=2)
        groups = self._opened(choice) * self.group_seconds[:, None]
        return np.asarray(heads + groups.sum(axis=2))

    def _opened(self, choice: Choice) -> NDArray[np.bool_]:
        """Whether any head of a layer has a member of a group: (bands, layers, G)."""
        used = (choice[..., None] == np.arange(self.errors.shape[-1])).any(axis=2)
        return np.asarray((used[:, :, None] & self.members).any(axis=-1))


def time_problem(errors: NDArray[np.float64], costs: Costs, steps: NDArray[np.float64]) -> Problem:
    """The problem in seconds of a run.

    Args:
        errors: (bands, layers, heads, C).
        costs: the cost model.
        steps: (bands,), steps of each band that are computed.
    """
    passes = steps * costs.passes
    times = np.outer(passes, costs.heads)
    groups = [Group(np.array(costs.pooled), passes * costs.pooling)]
    if costs.first and errors.size <= MOST_SHARED:
        each = np.eye(len(costs.names), dtype=bool)
        groups += [Group(*pair) for pair in zip(each, costs.first * times.T, strict=True)]
    elif costs.first:
        times *= 1 + costs.first
    return Problem(
        errors,
        times,
        passes * (costs.other + errors.shape[1] * costs.layer),
        passes * costs.dense_pass,
        tuple(group for group in groups if group.members.any() and group.seconds.any()),
    )


def density_problem(
    errors: NDArray[np.float64], densities: NDArray[np.float64], steps: NDArray[np.float64]
) -> Problem:
    """The problem in shares of dense attention, summed over steps, layers and heads.

    Args:
        errors: (bands, layers, heads, C).
        densities: (C,), of the candidates.
        steps: (bands,), steps of each band that are computed.
    """
    everything = steps * errors.shape[1] * errors.shape[2]
    return Problem(
        errors, np.outer(steps, densities), np.zeros(len(steps)), everything, unit="density"
    )
