import numpy as np
import pytest
import torch

import ajour.capture
from ajour import (
    BLOCK,
    Captured,
    Diagonal,
    Full,
    MultiDiagonal,
    Pyramid,
    Skip,
    Stripe,
    TokenGrid,
    attention,
    lower,
    scoring,
)
from ajour.capture import Importance, capture
from ajour.layout import token_slots
from ajour.lists import with_exact
from ajour.lowering import level_map
from ajour.scoring import Candidate, head_errors, sample_queries
from tests.conftest import random_qkv

PATTERNS = [
    Full(),
    Skip(),
    Diagonal(0.5),
    MultiDiagonal(1, 0),
    Stripe(4, 1),
    Pyramid(1, 2, 2),
    Pyramid(1, 1, 1, tail=False, order="raster"),
]


LEVELS = (-1, 0, 1, 2, 3)


def blocks_of(queries, grid, order):
    """The block of each of some tokens."""
    slots = torch.from_numpy(token_slots(grid, order)).long()
    return (slots[None] == queries[:, None]).int().argmax(1) // BLOCK


def candidates(grid, queries):
    return [
        Candidate(p.order, levels[blocks_of(queries, grid, p.order)], LEVELS)
        for p in PATTERNS
        for levels in [torch.from_numpy(level_map(p, grid))]
    ]


def by_the_operator(q, k, v, grid, queries, weight):
    """The same errors by running every candidate in float64."""
    heads, dim = q.shape[2:]
    dense = attention(q, k, v, lower([Full()] * heads, grid), backend="reference")[:, queries]
    errors = []
    for pattern in PATTERNS:
        out = attention(q, k, v, lower([pattern] * heads, grid), backend="reference")[:, queries]
        parts = weight.unflatten(1, (heads, dim))
        errors.append(torch.einsum("brhd,chd->brhc", out - dense, parts).square().sum((0, 1, 3)))
    return torch.stack(errors, 1) / (dense.flatten(2) @ weight.T).square().sum()


@pytest.mark.parametrize(
    "grid",
    [
        TokenGrid(9, 11, 13),
        TokenGrid(8, 12, 16),
        TokenGrid(8, 11, 12, before=5, after=40),
    ],
    ids=str,
)
def test_equals_running_every_candidate(grid):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, grid.seq_len, 3, 16, dtype=torch.float64) for _ in range(3))
    weight = torch.randn(20, 48, dtype=torch.float64)
    queries = sample_queries(grid, 50)
    errors = head_errors(q, k, v, grid, candidates(grid, queries), queries, weight)
    expected = by_the_operator(q, k, v, grid, queries, weight)
    assert expected[:, 1:].min() > 1e-3
    torch.testing.assert_close(errors, expected, rtol=1e-4, atol=1e-9)


def test_levels_of_each_head_and_chunks_of_heads(monkeypatch):
    grid = TokenGrid(4, 9, 9)
    q, k, v = (torch.randn(1, grid.seq_len, 3, 16) for _ in range(3))
    queries = sample_queries(grid, 32)
    order = Pyramid(1, 1, 1).order
    maps = [torch.from_numpy(level_map(p, grid)) for p in (Pyramid(1, 1, 1), Skip(), Full())]
    rows = torch.stack(maps)[:, blocks_of(queries, grid, order)]
    apart = [Candidate(order, levels, LEVELS) for levels in rows]
    single = head_errors(q, k, v, grid, apart, queries)
    monkeypatch.setattr("ajour.scoring.SUMS_BYTES", 1)
    stacked = head_errors(q, k, v, grid, [Candidate(order, rows, LEVELS)], queries)
    torch.testing.assert_close(stacked[:, 0], single.diagonal())


@pytest.mark.parametrize("text", [0, 130])
def test_candidates_are_laid_out_for_the_blocks_of_the_queries(text, monkeypatch):
    grid = TokenGrid(2, 9, 15, after=text)
    q, k, _ = (torch.randn(1, grid.seq_len, 2, 16) for _ in range(3))
    queries = sample_queries(grid, 9)
    captured = [
        Captured([0.2, 0.3, 0.6, 1.0], min_similarity=[limit, 0.1, 0.2], order=curve)
        for limit in (0.0, 0.1)
        for curve in ("raster", "bisection")
    ] + [Captured([0.2, 0.3, 0.6, 1.0]), Captured([0.2, 0.3, 0.3, 0.3])]
    expected = [with_exact(capture(q, k, grid, pattern), grid) for pattern in captured]
    calls = []
    for name in ("block_mass", "self_similarity"):
        measure = getattr(ajour.capture, name)
        monkeypatch.setattr(
            ajour.capture,
            name,
            lambda *args, f=measure, **options: calls.append(args[-1]) or f(*args, **options),
        )
    laid_out = scoring.lay_out(captured + PATTERNS, Importance(q, k, grid), queries)
    assert sorted(calls) == ["bisection"] * 2 + ["raster"] * 2  # measured once for all
    for candidate, levels in zip(laid_out, expected, strict=False):
        assert torch.equal(candidate.levels, levels[:, blocks_of(queries, grid, candidate.order)])
    for candidate, other in zip(laid_out[len(captured) :], candidates(grid, queries), strict=True):
        assert torch.equal(candidate.levels, other.levels)
    assert all(set(x.levels.unique().tolist()) <= set(x.used) for x in laid_out)


def test_a_query_whose_kept_keys_all_weigh_nothing_scores_as_nothing():
    grid = TokenGrid(1, 16, 16)
    q, k, v = (torch.randn(1, 256, 1, 8) for _ in range(3))
    k[:, :128] = q[:, :1] * 1e3
    kept = Candidate("raster", torch.tensor([[-1, 0]], dtype=torch.int8), (-1, 0))
    assert head_errors(q, k, v, grid, [kept], torch.tensor([0])).isfinite().all()


def test_a_layer_that_contributes_nothing_errs_by_nothing():
    grid = TokenGrid(4, 8, 8)
    q, k, v = random_qkv(grid, 2, 16)
    queries = sample_queries(grid, 8)
    candidates = scoring.lay_out([Full(), Skip()], Importance(q, k, grid), queries)
    errors = head_errors(q, k, torch.zeros_like(v), grid, candidates, queries)
    assert torch.equal(errors, torch.zeros(2, 2, dtype=torch.float64))


def test_sampled_queries_are_distinct_video_tokens():
    grid = TokenGrid(3, 5, 7, before=11, after=4)
    queries = sample_queries(grid, 20, seed=3).numpy()
    assert len(np.unique(queries)) == 20
    assert queries.min() >= 11
    assert queries.max() < 11 + 105
    assert len(sample_queries(grid, 1000)) == 105
    assert not np.array_equal(queries, sample_queries(grid, 20, seed=4))
