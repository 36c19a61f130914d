"""Measuring the level maps of a plan's captured patterns in a dense step."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ajour.capture import CapturedRows, Importance
from ajour.lists import indices
from ajour.patterns import Captured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from ajour.grid import TokenGrid
    from ajour.plan import Plan

Wanted = tuple[Captured, tuple[int, ...]]
"""A captured pattern and the heads of a layer that have it."""

Maps = list[dict[Wanted, CapturedRows]]
"""Measured level maps of every layer."""


class CapturedMaps:
    """Measures and holds the level maps of every captured head of one transformer.

    Where a step has several forward passes (guidance), they are measured in its first one; where
    a pass has samples of different text lengths, in its last sample; otherwise over the batch.

    Args:
        plan: the plan.
        backend: the operator's backend, which measures too; None chooses.
    """

    def __init__(self, plan: Plan, backend: str | None = None) -> None:
        self.backend = backend
        self.wanted = [
            list(dict.fromkeys(w for name in plan.assignments for w in wanted(plan, name, layer)))
            for layer in range(plan.model["layers"])
        ]
        self.plan = plan
        self.rows: Maps = [{} for _ in self.wanted]

    skipped: Sequence[int] = ()
    """Layers that the plan cannot do without; here none, each layer falls back by itself."""

    def listener(
        self, layer: int, _weight: Callable[[torch.Tensor], torch.Tensor | None]
    ) -> Callable[..., None] | None:
        """What to call with a layer's q, k, v, output and grid; None for a layer without any."""
        return partial(self._measure, layer) if self.wanted[layer] else None

    def decide(self) -> tuple[Plan, Maps]:
        """The plan, and the maps that were measured."""
        return self.plan, self.rows

    def _measure(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, _v: Any, _out: Any, grid: TokenGrid
    ) -> None:
        for want, levels in measure(q, k, grid, self.wanted[layer], self.backend):
            self.rows[layer][want] = CapturedRows.of(levels, want[1], want[0])


def measure(
    q: torch.Tensor,
    k: torch.Tensor,
    grid: TokenGrid,
    wants: Sequence[Wanted],
    backend: str | None = None,
) -> Iterator[tuple[Wanted, torch.Tensor]]:
    """The level maps of captured patterns; a head's mass is measured once per order.

    Args:
        q: (batch, tokens, heads, head_dim), as attention sees it, in the model's token order.
        k: same shape.
        grid: the token grid.
        wants: the patterns, each with its heads.
        backend: see `CapturedMaps`.

    Yields:
        A pattern with its heads, and their levels: int8 (its heads, Nv, Nv).
    """
    for order in {pattern.order: None for pattern, _ in wants}:
        group = [want for want in wants if want[0].order == order]
        heads = sorted({head for _, some in group for head in some})
        own_q, own_k = q, k
        if len(heads) < q.shape[2]:
            own_q, own_k = (x.index_select(2, indices(heads, x.device)) for x in (q, k))
        importance = Importance(own_q, own_k, grid, backend)
        for pattern, some in group:
            levels = importance.levels(pattern, [heads.index(head) for head in some])
            yield (pattern, some), levels


def wanted(plan: Plan, assignment: str, layer: int) -> list[Wanted]:
    """The captured patterns of a layer under an assignment, with their heads."""
    patterns = plan.layer(assignment, layer)
    return [
        (pattern, tuple(head for head, other in enumerate(patterns) if other == pattern))
        for pattern in dict.fromkeys(patterns)
        if isinstance(pattern, Captured)
    ]
