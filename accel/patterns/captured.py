"""`captured`: the key blocks that received most attention in a dense step, kept from then on.

SparseD (arXiv 2509.24014) captures each head's block map once and reuses it in all later steps;
Pyramid Sparse Attention (arXiv 2512.04025) gives blocks a pooling level by their share of the
attention. Here the levels follow from the measured attention and stay until the next dense step.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import torch

from ajour.lists import DROPPED, LEVELS
from ajour.orders import ORDERS
from ajour.patterns.base import Pattern
from ajour.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_SHARE = 1e-4
"""Smaller shares keep no key block at all, on grids of up to 5000 blocks."""


@dataclass(frozen=True)
class Captured(Pattern):
    """Levels by rank of the attention that blocks receive, measured while the pipeline runs.

    Args:
        cumulative_shares: four ascending numbers from 0 to 1. Blocks are ranked by attention, most
            first; the numbers say where exact blocks end and where blocks pooled 2x, 4x and 8x end.
            The remaining blocks are dropped. The last number is at least 0.0001: less keeps no key.
        share_of: what the shares count: `blocks`, or the `attention` that the blocks receive.
        scope: which blocks are ranked together: those of one query `block`, or those of all query
            blocks and heads of a `layer` with this pattern. Shares of attention need `block`.
        first_frame: rank the blocks that hold a token of the first frame among themselves, so that
            they keep their share.
        min_similarity: least cosine similarity of a pooled group's keys for levels 1, 2 and 3, -1
            to 1; a less similar block gets the next finer level. -1 sets no limit.
        order: the order that forms the blocks and the pooled groups, any of `ajour.ORDERS`.
    """

    kind: ClassVar[str] = "captured"
    sees: ClassVar[str] = "the key blocks that received most attention in a dense step"

    cumulative_shares: Sequence[float]
    share_of: str = "blocks"
    scope: str = "block"
    first_frame: bool = False
    min_similarity: Sequence[float] = (-1.0, -1.0, -1.0)
    order: str = "bisection"

    def __post_init__(self) -> None:
        for name, count, low in (
            ("cumulative_shares", LEVELS, 0.0),
            ("min_similarity", LEVELS - 1, -1.0),
        ):
            object.__setattr__(self, name, self._numbers(name, count, low))
        if (
            list(self.cumulative_shares) != sorted(self.cumulative_shares)
            or self.cumulative_shares[-1] < LEAST_SHARE
        ):
            raise ValueError(
                f"captured: cumulative_shares must not fall and must end at {LEAST_SHARE} or "
                f"above, because less keeps no key; got {list(self.cumulative_shares)}"
            )
        self.check_choice("share_of", ("blocks", "attention"))
        self.check_choice("scope", ("block", "layer"))
        self.check_choice("order", ORDERS)
        self.check_flag("first_frame")
        if self.share_of == "attention" and self.scope == "layer":
            raise ValueError("captured: with share_of 'attention', scope must be 'block'")

    @property
    def needs_similarity(self) -> bool:
        """Whether the levels depend on the similarity of keys."""
        return any(limit > -1 for limit in self.min_similarity)

    @property
    def levels(self) -> tuple[int, ...]:
        """Every level that a block can get, -1 for dropped, ascending."""
        kept = self._ranked_levels
        if self.needs_similarity:
            kept = list(range(max(kept) + 1))
        return (*([DROPPED] if self.cumulative_shares[-1] < 1 else []), *kept)

    @property
    def _ranked_levels(self) -> list[int]:
        """The levels whose share is not empty, ascending."""
        return [level for level, share in enumerate(self._shares) if share > 0]

    @property
    def _shares(self) -> list[float]:
        """The share of each level."""
        return [end - start for start, end in pairwise((0.0, *self.cumulative_shares))]

    @property
    def density(self) -> float:
        """Share of dense attention's tiles on a large grid, before limits of similarity.

        An upper bound if `share_of` is "attention".
        """
        return sum(share / 2**level for level, share in enumerate(self._shares))

    @property
    def ranking(self) -> tuple[object, ...]:
        """Patterns with the same value rank blocks in the same way."""
        return self.order, self.share_of, self.scope, self.first_frame

    def select(
        self,
        mass: torch.Tensor,
        first_frame: torch.Tensor,
        similarity: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Levels from measured attention, without waiting for the device.

        Args:
            mass: float (heads, Nv, Nv), from `ajour.capture.block_mass`: rows sum to 1.
            first_frame: bool (Nv,), key blocks that hold a token of the first frame.
            similarity: float (heads, Nv, 3), from `ajour.capture.self_similarity`; only used if
                `needs_similarity`.

        Returns:
            int8 (heads, Nv, Nv), -1 where dropped.
        """
        return self.assign(self.share_above(mass, first_frame), similarity)

    def share_above(self, mass: torch.Tensor, first_frame: torch.Tensor) -> torch.Tensor:
        """Share of blocks or attention (see `share_of`) that is ranked above each block.

        Arguments are those of `select`; the result, float32 (heads, Nv, Nv), is to be compared with
        `cumulative_shares`.
        """
        if not self.first_frame:
            return self._share_above(mass, None)
        inside, outside = (self._share_above(mass, group) for group in (first_frame, ~first_frame))
        return torch.where(first_frame, inside, outside)

    def assign(
        self, share_above: torch.Tensor, similarity: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Levels from the share that is ranked above each block.

        Rounding may put the last blocks at 1: they get the coarsest level if nothing is dropped.

        Args:
            share_above: (heads, queries, Nv), from `share_above`, for all query blocks or some.
            similarity: see `select`.

        Returns:
            int8 of the same shape as `share_above`, -1 where dropped.
        """
        ranked = self._ranked_levels
        *ranked, last = ranked if self.cumulative_shares[-1] == 1 else [*ranked, DROPPED]
        levels = torch.full(share_above.shape, last, dtype=torch.int8, device=share_above.device)
        for level in reversed(ranked):
            levels = torch.where(share_above < self.cumulative_shares[level], level, levels)
        for level in range(LEVELS - 1, 0, -1):
            limit = self.min_similarity[level - 1]
            if similarity is not None and limit > -1:
                dissimilar = (similarity[..., level - 1] < limit)[:, None, :]
                levels = torch.where((levels == level) & dissimilar, level - 1, levels)
        return levels

    def _share_above(self, mass: torch.Tensor, group: torch.Tensor | None) -> torch.Tensor:
        """`share_above` among the blocks of a group, or among all; undefined outside the group."""
        if group is not None:
            mass = mass.masked_fill(~group, -1.0)
        flat = mass.flatten() if self.scope == "layer" else mass
        sorted_mass, places = flat.sort(dim=-1, descending=True, stable=True)
        if self.share_of == "attention":
            kept = sorted_mass.clamp(min=0)
            shares = (kept.cumsum(-1) - kept) / kept.sum(-1, keepdim=True).clamp(min=1e-30)
        else:
            members = mass.shape[-1] if group is None else group.sum()
            count = members * (flat.numel() // mass.shape[-1] if self.scope == "layer" else 1)
            ranks = torch.arange(flat.shape[-1], device=mass.device, dtype=torch.float32)
            shares = ((ranks + 0.5) / count).expand_as(flat)
        return torch.empty_like(flat).scatter_(-1, places, shares).view(mass.shape)

    def _numbers(self, name: str, count: int, low: float) -> tuple[float, ...]:
        values = getattr(self, name)
        good = isinstance(values, list | tuple) and len(values) == count
        good = good and all(isinstance(x, int | float) and not isinstance(x, bool) for x in values)
        if not good or not all(low <= x <= 1 for x in values):
            raise ValueError(
                f"captured: {name} must be {count} numbers from {low:g} to 1, got {quoted(values)}"
            )
        return tuple(float(x) for x in values)
