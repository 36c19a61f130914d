"""`plan="auto"`: what an automatic plan may choose from, and when; `choosing` chooses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

from ajour.grid import BLOCK
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

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ajour.grid import TokenGrid


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

LEAST_BLOCKS = 16
"""Grids of fewer blocks stay dense: attention takes little of their time, and a pattern of whole
blocks cannot follow what a head attends to."""


@dataclass(frozen=True)
class Auto:
    """How to choose a plan on the way.

    Args:
        density: mean density over all heads and sparse steps, over 0 and up to 1. The first sparse
            steps get more of it, the later ones less. With 1 every computed step is dense.
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

    def on(self, grid: TokenGrid | None) -> Auto:
        """The options for a grid, if it is known: a small grid stays dense."""
        small = grid is not None and small_grid(grid) is not None
        return replace(self, density=1.0) if small else self

    def schedule(self, noise_levels: Sequence[float], in_a_row: int = 0) -> Schedule:
        """The schedule for a run with these noise levels.

        Args:
            noise_levels: of its steps.
            in_a_row: how many steps are reused after a computed step.
        """
        schedule = Schedule(tuple(self._computed_phases(noise_levels)))
        reused = self.reused(noise_levels, in_a_row)
        return schedule.reusing(noise_levels, reused) if reused else schedule

    def _computed_phases(self, noise_levels: Sequence[float]) -> list[Phase]:
        """The phases of a schedule without reused steps."""
        if self.density == 1:
            return [Phase(1.0, DENSE)]
        bound = min(1.0, max(self.from_noise_level, noise_levels[len(noise_levels) // 2]))
        phases = [Phase(bound, SPARSE, self.dense_every)]
        if bound < 1:
            phases.insert(0, Phase(1.0, DENSE))
        if bound > LATE_BELOW:
            phases.append(Phase(LATE_BELOW, LATE, self.dense_every))
        return phases

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


def model_of(transformer: torch.nn.Module) -> dict[str, Any]:
    """What a plan says of its model: class, layers, heads, head_dim."""
    family = family_of(transformer)
    return {
        "transformer": class_name(transformer),
        "layers": len(family.layers(transformer)),
        "heads": family.heads(transformer),
        "head_dim": family.head_dim(transformer),
    }


def dense_plan(
    auto: Auto, transformer: torch.nn.Module, grid: TokenGrid | None, noise_levels: Sequence[float]
) -> Plan | None:
    """The plan of a run in which every computed step is dense; None where heads get patterns.

    Args:
        auto: the options.
        transformer: the enabled transformer.
        grid: of the run.
        noise_levels: of the run's steps.
    """
    here = auto.on(grid)
    if here.density < 1:
        return None
    made = {"made_by": "auto", "grid": str(grid), "density": here.density}
    return Plan(model_of(transformer), {}, {}, here.schedule(noise_levels), made)


def small_grid(grid: TokenGrid) -> str | None:
    """Why an automatic plan leaves a grid dense; None if it does not."""
    if grid.blocks >= LEAST_BLOCKS:
        return None
    return (
        f"grid {grid} has {grid.blocks} blocks of {BLOCK} tokens: automatic plans run fewer than "
        f"{LEAST_BLOCKS} blocks dense"
    )
