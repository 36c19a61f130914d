"""Dtypes that change no result: torch's default dtype, and that of sums in low precision."""

import pytest
import torch

from ajour import BlockTable, Captured, Pyramid, TokenGrid, attention, lower
from ajour.backends.pooling import pool_blocks
from ajour.capture import Importance, block_mass, capture
from ajour.grid import BLOCK
from ajour.scoring import head_errors, lay_out, sample_queries
from tests.conftest import random_qkv, random_table

GRID = TokenGrid(4, 9, 11, after=9)


def everything(q, k, v):
    """What the core computes in float32."""
    table = random_table(GRID, heads=2, seed=0)
    results = [
        attention(q, k, v, table, backend=backend, return_lse=True)[1]
        for backend in ("reference", "cpu")
    ]
    results += [block_mass(q, k, GRID, "bisection"), sample_queries(GRID, 20)]
    pyramid = Pyramid(1, 1, 1)
    pattern = Captured([0.2, 0.3, 0.4, 1.0], min_similarity=[0.1, 0.1, 0.1], scope="layer")
    queries = sample_queries(GRID, 20)
    chosen = lay_out([pyramid, pattern], Importance(q, k, GRID), queries)
    results.append(head_errors(q, k, v, GRID, chosen, queries))
    levels = capture(q, k, GRID, pattern)
    table = lower([pattern] * 2, GRID)
    (rows,) = BlockTable.with_rows([table], [(levels, torch.arange(2), 3)])
    return [*results, levels, attention(q, k, v, rows, backend="cpu")]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_default_dtype_changes_nothing(dtype):
    inputs = random_qkv(GRID, 2, 16)
    expected = everything(*inputs)
    torch.set_default_dtype(dtype)
    try:
        results = everything(*inputs)
    finally:
        torch.set_default_dtype(torch.float32)
    for result, other in zip(results, expected, strict=True):
        torch.testing.assert_close(result, other, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("level", [1, 2, 3])
def test_pooling_sums_in_float32(dtype, level):
    """Large values do not overflow, and a mean is rounded once."""
    valid = torch.tensor([BLOCK, 77])
    blocks = (torch.randn(3, 2, BLOCK, 16) * 20_000).clamp(-60_000, 60_000).to(dtype)
    blocks[:, 1, 77:] = 0
    exact = pool_blocks(blocks.double(), valid, level)
    assert torch.equal(pool_blocks(blocks, valid, level), exact.float().to(dtype))
    large = torch.full((1, 2, BLOCK, 16), 40_000.0, dtype=dtype)
    assert pool_blocks(large, torch.tensor([BLOCK, BLOCK]), level).isfinite().all()
