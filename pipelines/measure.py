"""What a dense step is listened to for: the level maps of a plan's captured patterns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ajour.capture import CapturedRows, capture
from ajour.patterns import Captured

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from ajour.grid import TokenGrid
    from ajour.plan import Plan

Wanted = tuple[Captured, tuple[int, ...]]
"""A captured pattern and the heads of a layer that have it."""


class CapturedMaps:
    """Measures and holds the level maps of every captured head of one transformer.

    Where a step has several forward passes (guidance), they are measured in its first one; where
    a pass has samples of different text lengths, in its last sample; otherwise over the batch.

    Args:
        plan: the plan.
    """

    def __init__(self, plan: Plan) -> None:
        self.wanted = [
            list(dict.fromkeys(w for name in plan.assignments for w in wanted(plan, name, layer)))
            for layer in range(plan.model["layers"])
        ]
        self.rows: list[dict[Wanted, CapturedRows]] = [{} for _ in self.wanted]

    def listener(
        self, layer: int, _weight: Callable[[], torch.Tensor | None]
    ) -> Callable[..., None] | None:
        """What to call with a layer's q, k, v, output and grid; None if it has nothing to find."""
        if not self.wanted[layer]:
            return None

        def listen(
            q: torch.Tensor, k: torch.Tensor, _v: torch.Tensor, _out: torch.Tensor, grid: TokenGrid
        ) -> None:
            for pattern, heads in self.wanted[layer]:
                levels = capture(q[:, :, heads], k[:, :, heads], grid, pattern)
                self.rows[layer][pattern, heads] = CapturedRows.of(levels, heads, pattern)

        return listen


def wanted(plan: Plan, assignment: str, layer: int) -> list[Wanted]:
    """The captured patterns of a layer under an assignment, with their heads."""
    patterns = plan.layer(assignment, layer)
    return [
        (pattern, tuple(head for head, other in enumerate(patterns) if other == pattern))
        for pattern in dict.fromkeys(patterns)
        if isinstance(pattern, Captured)
    ]
