"""Scoring many choices of key blocks and levels together, by the error for sampled queries.

The attention of a query is a sum of numerators over key blocks, divided by a sum of denominators,
with one numerator and denominator per block and level. They are computed once per order; scoring a
candidate only adds some of them up. At most (samples x tokens) logits of a few heads exist at the
same time.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch

from ajour.backends.pooling import group_bias, pool_blocks
from ajour.grid import BLOCK
from ajour.layout import Layout, block_layout
from ajour.lists import indices, with_exact_keys
from ajour.lowering import level_map
from ajour.patterns import Captured, GeometricPattern

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ajour.capture import Importance
    from ajour.grid import TokenGrid
    from ajour.patterns import Pattern

SUMS_BYTES = 768 * 2**20
"""Limit for the partial sums of the heads that are computed together."""


class Candidate(NamedTuple):
    """A choice of key blocks to score.

    Args:
        order: name of the order that forms the blocks.
        levels: int8 (R, N) for all heads, or (heads, R, N): the level of each key block for the
            query block of each of R sampled queries, -1 where dropped; exact blocks included.
        used: the levels that can occur.
    """

    order: str
    levels: torch.Tensor
    used: tuple[int, ...]


def sample_queries(grid: TokenGrid, count: int, seed: int = 0) -> torch.Tensor:
    """Evenly spread video tokens to score on: int64 (at most `count`,), model-order indices.

    Args:
        grid: the token grid.
        count: number of tokens.
        seed: varies the place of each token within its share of the grid.
    """
    count = min(count, grid.video_tokens)
    generator = torch.Generator("cpu").manual_seed(seed)
    share = grid.video_tokens / count
    within = torch.rand(count, generator=generator, dtype=torch.float32, device="cpu")
    places = (torch.arange(count, device="cpu") + within) * share
    return places.long().clamp(max=grid.video_tokens - 1) + grid.before


def lay_out(
    patterns: Sequence[Pattern], importance: Importance, queries: torch.Tensor
) -> list[Candidate]:
    """Candidates for `queries`, int64 (R,), from patterns; captured patterns use measurements."""
    grid, device = importance.grid, queries.device
    blocks = {
        order: block_layout(grid, order, device).places[queries] // BLOCK
        for order in {pattern.order for pattern in patterns}
    }
    candidates = []
    for pattern in patterns:
        rows = blocks[pattern.order]
        if isinstance(pattern, GeometricPattern):
            levels, used = _geometric_levels(pattern, grid, device)
            candidates.append(Candidate(pattern.order, levels[rows], used))
        elif isinstance(pattern, Captured):
            share_above = importance.share_above(pattern)[:, rows]
            levels = pattern.assign(share_above, importance.similarity(pattern))
            levels = with_exact_keys(levels, grid)
            candidates.append(Candidate(pattern.order, levels, pattern.levels))
    return candidates


@lru_cache(maxsize=256)
def _geometric_levels(
    pattern: GeometricPattern, grid: TokenGrid, device: torch.device
) -> tuple[torch.Tensor, tuple[int, ...]]:
    levels = torch.from_numpy(level_map(pattern, grid))
    return levels.to(device), tuple(levels.unique().tolist())


def head_errors(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    grid: TokenGrid,
    candidates: Sequence[Candidate],
    queries: torch.Tensor,
    weight: torch.Tensor | None = None,
    scale: float | None = None,
) -> torch.Tensor:
    """Error of each head's contribution to the output of its layer, for each candidate.

    The error is ||W_h (O_h' - O_h)||^2 / ||W O||^2 over the sampled queries. It is comparable
    between heads and layers, and additive over heads with independent errors (after Sparse-vDiT,
    arXiv 2506.03065, whose scale depends on the model).

    Args:
        q: (batch, tokens, heads, head_dim), as attention sees it, in the model's token order.
        k: same shape.
        v: same shape.
        grid: the token grid.
        candidates: C choices of key blocks, from `lay_out` for these queries.
        queries: int64 (R,), tokens to score on, from `sample_queries`.
        weight: (channels, heads * head_dim), the output projection W; the identity if None.
        scale: factor on the logits; 1 / sqrt(head_dim) by default.

    Returns:
        float64 (heads, C), on the device of q; 0 where the output of the layer is 0. Costs as much
        as dense attention of the sampled queries, once per order and level.
    """
    batch, _, heads, dim = q.shape
    scale = 1.0 / math.sqrt(dim) if scale is None else scale
    queries = queries.to(q.device)
    weight = None if weight is None else weight.to(q.device)
    gram = _gram(weight, heads, dim, q.device)
    errors = torch.zeros(heads, len(candidates), dtype=torch.float64, device=q.device)
    dense = q.new_empty(batch, len(queries), heads, dim, dtype=torch.float32)
    for name in dict.fromkeys(candidate.order for candidate in candidates):
        members = [i for i, candidate in enumerate(candidates) if candidate.order == name]
        places = indices(members, q.device)
        used = {level for i in members for level in candidates[i].used}
        levels = [0, *sorted(level for level in used if level > 0)]
        layout = block_layout(grid, name, q.device)
        chosen = torch.stack(
            [candidates[i].levels.to(q.device).expand(heads, -1, -1) for i in members], dim=2
        )
        size = 4 * len(queries) * grid.blocks * (2 * BLOCK + len(levels) * (dim + 1))
        together = max(1, SUMS_BYTES // size)
        for sample in range(batch):
            for start in range(0, heads, together):
                part = slice(start, start + together)
                query = q[sample, queries, part]
                key, value = k[sample, :, part], v[sample, :, part]
                sums = _partial_sums(query, key, value, layout, levels, scale)
                whole = sums[:, :, :, 0].sum(dim=2)
                exact = whole[..., :dim] / whole[..., dim:]
                dense[sample, :, part] = exact.transpose(0, 1)
                mixed = _mix(sums, chosen[part], levels)
                change = mixed - exact[:, None]
                squares = ((change @ gram[part, None]) * change).sum(dim=(2, 3))
                errors[part, places] += squares.double()
    return errors / _norm(dense, weight).clamp(min=torch.finfo(torch.float64).tiny)


def _partial_sums(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    layout: Layout,
    levels: list[int],
    scale: float,
) -> torch.Tensor:
    """Numerator and denominator of every (query, key block, level), up to a factor per query.

    From sampled queries (R, heads, head_dim) and keys and values (tokens, heads, head_dim) to
    (heads, R, N, L, head_dim + 1), the denominator last. The first of the L levels is 0.
    """
    query = (q.float() * scale).transpose(0, 1)[:, None]
    keys, values = layout.pack(k), layout.pack(v)
    samples, heads, dim = q.shape
    sums = query.new_empty(heads, samples, len(layout.sizes), len(levels), dim + 1)
    peak = query.new_zeros(())
    for index, level in enumerate(levels):
        logits = query @ pool_blocks(keys, layout.sizes, level).transpose(2, 3)
        logits += group_bias(layout.sizes, level).float()[:, None]
        if level == 0:
            peak = logits.amax(dim=(1, 3))[:, None, :, None]
        weights = logits.sub_(peak).exp_()
        mixed = weights @ pool_blocks(values, layout.sizes, level)
        sums[..., index, :dim] = mixed.transpose(1, 2)
        sums[..., index, dim] = weights.sum(dim=-1).transpose(1, 2)
    return sums


def _mix(sums: torch.Tensor, chosen: torch.Tensor, computed: list[int]) -> torch.Tensor:
    """Outputs (heads, C, R, head_dim) for the levels of the candidates (heads, R, C, N)."""
    picks = torch.stack([chosen == level for level in computed], -1).to(sums.dtype).flatten(3)
    mixed = (picks @ sums.flatten(2, 3)).transpose(1, 2)
    return mixed[..., :-1] / mixed[..., -1:].clamp(min=torch.finfo(mixed.dtype).tiny)


def _gram(weight: torch.Tensor | None, heads: int, dim: int, device: torch.device) -> torch.Tensor:
    """W_h^T W_h of every head: (heads, head_dim, head_dim)."""
    if weight is None:
        return torch.eye(dim, dtype=torch.float32, device=device).expand(heads, dim, dim)
    parts = weight.detach().float().unflatten(1, (heads, dim))
    return torch.einsum("chd,che->hde", parts, parts)


def _norm(dense: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """||W O||^2 over the sampled queries of all samples: a float64 scalar."""
    out = dense.flatten(2)
    if weight is not None:
        out = out @ weight.detach().float().T
    return out.double().square().sum()
