"""`plan="auto"`: every head's pattern chosen while the pipeline runs, from its last dense step.

Each head's candidates, static ones and captured ones, are scored on sampled queries by their error
after the output projection; the choice over all heads meets a budget of dense attention's FLOPs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ajour.capture import CapturedRows, Importance, PackedLevels
from ajour.lists import indices
from ajour.lowering import density
from ajour.patterns import (
    Captured,
    Diagonal,
    Full,
    MultiDiagonal,
    Pattern,
    Pyramid,
    Skip,
    Stripe,
)
from ajour.plan import Plan
from ajour.processors import class_name, family_of
from ajour.schedule import DENSE, PAST, Phase, Schedule
from ajour.scoring import head_errors, lay_out, sample_queries

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.pipelines.measuring import Maps


class Speed(NamedTuple):
    """Mean density of sparse steps, and what `Auto.reuse` says."""

    density: float
    reuse: float


SPEEDS = {
    "careful": Speed(0.45, 0.003),
    "balanced": Speed(0.3, 0.012),
    "fast": Speed(0.2, 0.05),
}
"""What an automatic plan may lose, by name."""

REUSE_BELOW = 0.8
"""Noise level at which reused steps begin: before, outputs still change their direction."""

MIDDLE = (0.3, 0.7)
"""Noise levels between which one more step in a row is reused: outputs change most evenly there."""

MOST_IN_A_ROW = 3
"""Bound of reused steps between computed steps, outside of the middle."""

SPARSE, LATE = "auto", "auto-late"
"""The assignments that an automatic plan makes, of the first sparse steps and of the rest."""

LATE_BELOW = 0.75
"""Noise level at which `LATE` begins: what is decided there is detail, which needs less."""

LATE_SHARE, SPARSE_SHARE = 0.5, 2.0
"""Least and greatest density of the two assignments, relative to the mean that is asked for."""

EXACT_SHARES = (0.03, 0.08, 0.15, 0.25, 0.4)
"""Of captured candidates: key blocks that stay exact; all others are pooled 8x."""

QUERIES = 64
"""Queries that candidates are scored on, of each layer."""


@dataclass(frozen=True)
class Auto:
    """How to choose a plan on the way.

    Args:
        density: mean density over all heads and sparse steps, over 0 and up to 1. The first sparse
            steps get more of it, the later ones less.
        from_noise_level: where sparse steps begin; a lower one is closer to dense. At least half
            of the steps run sparse whatever it is, unless `dense_every` says otherwise.
        dense_every: every so many sparse steps one runs dense, in which every pattern is measured
            and chosen again; 0 for never. With it, every step is computed.
        reuse: steps are reused if the relative squared error of their outputs is expected to be at
            most this; 0 to compute every step. It is decided once in a run, where steps may begin
            to be reused, by how well the last output followed from those before.

    Raises:
        ValueError: if a number is out of range.
    """

    density: float = SPEEDS["balanced"].density
    from_noise_level: float = 0.95
    dense_every: int = 0
    reuse: float = SPEEDS["balanced"].reuse

    def __post_init__(self) -> None:
        for name in ("density", "from_noise_level"):
            value = getattr(self, name)
            number = isinstance(value, Real) and not isinstance(value, bool)
            if not number or not 0 < value <= 1:
                raise ValueError(f"{name} must be a number over 0 and up to 1, got {value!r}")
            object.__setattr__(self, name, float(value))
        reuse = self.reuse
        if isinstance(reuse, bool) or not isinstance(reuse, Real) or not 0 <= reuse <= 1:
            raise ValueError(f"reuse must be a number from 0 to 1, got {reuse!r}")
        object.__setattr__(self, "reuse", float(reuse))
        Schedule((Phase(1.0, SPARSE, self.dense_every),))  # checks dense_every

    def schedule(self, noise_levels: Sequence[float], in_a_row: int = 0) -> Schedule:
        """The schedule for a run with these noise levels.

        Args:
            noise_levels: of its steps.
            in_a_row: how many steps are reused after a computed step.
        """
        bound = min(1.0, max(self.from_noise_level, noise_levels[len(noise_levels) // 2]))
        phases = [Phase(bound, SPARSE, self.dense_every)]
        if bound < 1:
            phases.insert(0, Phase(1.0, DENSE))
        if bound > LATE_BELOW:
            phases.append(Phase(LATE_BELOW, LATE, self.dense_every))
        schedule = Schedule(tuple(phases))
        reused = self.reused(noise_levels, in_a_row)
        return schedule.reusing(noise_levels, reused) if reused else schedule

    def reuse_begins(self, noise_levels: Sequence[float]) -> int | None:
        """Index of the step that may be the first reused step; None if there is none.

        Three steps are computed before, and the last step is always computed.
        """
        begin = next((i for i, x in enumerate(noise_levels) if x <= REUSE_BELOW), len(noise_levels))
        begin = max(begin, PAST)
        possible = self.reuse > 0 and not self.dense_every and begin < len(noise_levels) - 1
        return begin if possible else None

    def in_a_row(self, missed: float) -> int:
        """How many steps to reuse after a computed step, by `PastOutputs.missed`.

        The error of outputs grows with the distance, and errors of neighbours add up.
        """
        fits = [
            n for n in range(1, MOST_IN_A_ROW + 1) if missed * (n * (n + 1) / 2) ** 2 <= self.reuse
        ]
        return max(fits, default=0)

    def reused(self, noise_levels: Sequence[float], in_a_row: int) -> list[int]:
        """The indices of reused steps."""
        reused: list[int] = []
        step = self.reuse_begins(noise_levels)
        while in_a_row and step is not None and step < len(noise_levels) - 1:
            length = in_a_row + (MIDDLE[0] <= noise_levels[step] <= MIDDLE[1])
            reused += range(step, min(step + length, len(noise_levels) - 1))
            step += length + 1
        return reused

    def densities(self, noise_levels: Sequence[float]) -> dict[str, float]:
        """The density of each assignment in a run with these noise levels; their mean is ours."""
        names = self.schedule(noise_levels).steps(noise_levels)
        first, late = names.count(SPARSE), names.count(LATE)
        if not first or not late:
            return {SPARSE: self.density, LATE: self.density}
        total = self.density * (first + late)
        rest = LATE_SHARE * self.density * late
        early = min(SPARSE_SHARE * self.density, 1.0, (total - rest) / first)
        return {SPARSE: early, LATE: (total - early * first) / late}

    def candidates(self, grid: TokenGrid) -> list[Pattern]:
        """The patterns that heads can choose from, widths in proportion to the grid."""
        patterns: list[Pattern] = [Full(), Skip()]
        near = [(round(grid.height * n), round(grid.width * n)) for n in (0, 0.06, 0.12, 0.19)]
        if grid.frames > 1:
            patterns += [Diagonal(grid.frames * width) for width in (0.04, 0.08, 0.16)]
            patterns += [Stripe(stride) for stride in (3, 4) if stride < grid.frames]
            patterns += [MultiDiagonal(*box) for box in near]
            patterns += [Pyramid(grid.frames - 1, *near[0], order="column")]
        patterns += [Pyramid(0, *box, order="raster") for box in near[1:3]]
        patterns += [Pyramid(int(grid.frames > 1), *near[1])]
        for order in ("bisection", "raster", "column")[: 3 if grid.frames > 1 else 2]:
            patterns += [Captured((share,) * 3 + (1.0,), order=order) for share in EXACT_SHARES]
        return list(dict.fromkeys(patterns))


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


def model_of(transformer: torch.nn.Module) -> dict[str, Any]:
    """What a plan says of its model: class, layers, heads, head_dim."""
    family = family_of(transformer)
    return {
        "transformer": class_name(transformer),
        "layers": len(family.layers(transformer)),
        "heads": family.heads(transformer),
        "head_dim": family.head_dim(transformer),
    }


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
