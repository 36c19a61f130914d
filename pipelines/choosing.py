"""Choosing an automatic plan: every head's pattern, from the last dense step of a run.

Each head's candidates, static ones and captured ones, are scored on sampled queries by their error
after the output projection; the choice over all heads meets a budget of dense attention's FLOPs.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ajour.capture import CapturedRows, Importance, PackedLevels
from ajour.lists import indices
from ajour.lowering import density
from ajour.patterns import Captured
from ajour.plan import Plan
from ajour.schedule import DENSE
from ajour.scoring import head_errors, lay_out, sample_queries

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.pipelines.auto import Auto
    from ajour.pipelines.measuring import Maps

QUERIES = 64
"""Queries that candidates are scored on, of each layer."""


class AutoPlanner:
    """Listens to one dense pass of a transformer and chooses.

    Where the pass has samples of different text lengths, the last one counts.

    Args:
        auto: how to choose.
        model: see `model_of`.
        grid: the transformer's token grid.
        noise_levels: of the run's steps.
        backend: see `CapturedMaps`.
    """

    def __init__(
        self,
        auto: Auto,
        model: dict[str, Any],
        grid: TokenGrid,
        noise_levels: Sequence[float],
        backend: str | None = None,
    ) -> None:
        self.backend = backend
        self.auto = auto
        self.noise_levels = noise_levels
        self.model = model
        self.grid = grid
        self.patterns = auto.candidates(grid)
        ends = {
            end for p in self.patterns if isinstance(p, Captured) for end in p.cumulative_shares
        }
        self.bounds = tuple(sorted({0.0} | ends - {1.0}))
        self.queries = sample_queries(grid, QUERIES)
        layers = model["layers"]
        self.errors: list[torch.Tensor | None] = [None] * layers
        self.ranks: list[dict[tuple[object, ...], PackedLevels]] = [{} for _ in range(layers)]

    def listener(
        self, layer: int, weight: Callable[[torch.Tensor], torch.Tensor | None]
    ) -> Callable[..., None]:
        """What to call with a layer's q, k, v, output and grid.

        Args:
            layer: index of the layer.
            weight: gives the layer's output projection for its attention's output, see
                `Family.output_weight`.
        """
        return partial(self._score, layer, weight)

    @property
    def skipped(self) -> list[int]:
        """Layers that were not heard, because a cache skipped them; they stay full."""
        return [layer for layer, errors in enumerate(self.errors) if errors is None]

    def decide(self) -> tuple[Plan, Maps]:
        """The plan, and the maps of its captured heads, layer by layer."""
        names = [f"{index:02d}-{pattern.kind}" for index, pattern in enumerate(self.patterns)]
        schedule = self.auto.schedule(self.noise_levels)
        densities = self.auto.densities(self.noise_levels)
        chosen = {
            phase.assignment: self._choose(densities[phase.assignment])
            for phase in schedule.phases
            if phase.assignment != DENSE
        }
        maps: Maps = [{} for _ in range(self.model["layers"])]
        for choice in chosen.values():
            for layer, (rows, picks) in enumerate(zip(maps, choice, strict=True)):
                for index in dict.fromkeys(picks.tolist()):
                    pattern = self.patterns[index]
                    if isinstance(pattern, Captured):
                        heads = tuple(np.flatnonzero(picks == index).tolist())
                        ranks = self.ranks[layer][pattern.ranking].unpack()
                        ranks = ranks[indices(heads, ranks.device)]
                        share_above = _tensor(self.bounds, ranks.device)[ranks.int()]
                        levels = pattern.assign(share_above)
                        rows[pattern, heads] = CapturedRows.of(levels, heads, pattern)
        used = sorted({index for choice in chosen.values() for index in choice.flatten().tolist()})
        plan = Plan(
            self.model,
            {names[index]: self.patterns[index] for index in used},
            {
                use: tuple(tuple(names[index] for index in picks) for picks in choice)
                for use, choice in chosen.items()
            },
            schedule,
            {"made_by": "auto", "grid": str(self.grid), "density": self.auto.density},
        )
        return plan, maps

    def _choose(self, budget: float) -> NDArray[np.int64]:
        """The candidate of every head of every layer (layers, heads) for a mean budget."""
        heard = [i for i, errors in enumerate(self.errors) if errors is not None]
        chosen = np.zeros((self.model["layers"], self.model["heads"]), dtype=np.int64)
        if heard:
            errors = torch.stack([x for x in self.errors if x is not None]).cpu().numpy()
            costs = np.array([density(pattern, self.grid) for pattern in self.patterns])
            errors = errors.reshape(-1, len(costs))
            flat = choose(errors, np.broadcast_to(costs, errors.shape), budget)
            chosen[heard] = flat.reshape(len(heard), -1)
        return chosen

    def _score(
        self,
        layer: int,
        weight: Callable[[torch.Tensor], torch.Tensor | None],
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        out: torch.Tensor,
        grid: TokenGrid,
    ) -> None:
        self.queries = self.queries.to(q.device)
        importance = Importance(q, k, grid, self.backend)
        candidates = lay_out(self.patterns, importance, self.queries)
        rankings = {p.ranking: p for p in self.patterns if isinstance(p, Captured)}
        for ranking, pattern in rankings.items():
            # Between which bounds a block ranks is all that its levels depend on.
            share_above = importance.share_above(pattern)
            bounds = _tensor(self.bounds, q.device)
            ranks = torch.bucketize(share_above, bounds, out_int32=True, right=True) - 1
            packed = PackedLevels.pack(ranks.to(torch.int8), tuple(range(len(bounds))))
            self.ranks[layer][ranking] = packed
        self.errors[layer] = head_errors(q, k, v, grid, candidates, self.queries, weight(out))


@lru_cache(maxsize=32)
def _tensor(numbers: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32, device=device)


def choose(
    errors: NDArray[np.float64], costs: NDArray[np.float64], budget: float
) -> NDArray[np.int64]:
    """One candidate per group: little total error within a mean cost.

    A multiplier on the cost is bisected, which is optimal but for what one group can still gain;
    that is then spent on the upgrades that gain most per cost.

    Args:
        errors: (groups, C).
        costs: (groups, C).
        budget: greatest mean cost. If even the cheapest candidates cost more, they are taken.

    Returns:
        (groups,), the index of each group's candidate.
    """
    rows = np.arange(len(errors))
    low, high = 0.0, 1e-12
    while high < 1e30 and costs[rows, (errors + high * costs).argmin(1)].mean() > budget:
        low, high = high, high * 4
    for _ in range(50):
        middle = (low + high) / 2
        if costs[rows, (errors + middle * costs).argmin(1)].mean() > budget:
            low = middle
        else:
            high = middle
    chosen = (errors + high * costs).argmin(1)
    while True:
        room = (budget - costs[rows, chosen].mean()) * len(errors)
        more = costs - costs[rows, chosen][:, None]
        gain = errors[rows, chosen][:, None] - errors
        rate = np.where((gain > 0) & (more <= room), gain / np.maximum(more, 1e-9), 0)
        group, candidate = np.unravel_index(rate.argmax(), rate.shape)
        if rate[group, candidate] <= 0:
            return np.asarray(chosen)
        chosen[group] = candidate
