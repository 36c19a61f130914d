import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ajour import BlockTable, Full, Skip, TokenGrid, Window, attention, lower
from tests.conftest import assert_matches_oracle, random_qkv, random_table

GRIDS = [
    TokenGrid(1, 1, 1),
    TokenGrid(2, 3, 4),
    TokenGrid(1, 8, 16),
    TokenGrid(3, 7, 9),
    TokenGrid(3, 7, 9, before=5, after=11),
    TokenGrid(4, 8, 8, before=77),
    TokenGrid(2, 9, 11, after=129),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_cpu_backend_matches_the_oracle(grid, dtype, seed):
    table = random_table(grid, heads=4, seed=seed)
    q, k, v = random_qkv(grid, 4, 16, dtype, batch=2)
    out, lse = attention(q, k, v, table, backend="cpu", return_lse=True)
    assert_matches_oracle(q, k, v, table, out, lse)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_full_table_is_dense_attention(grid):
    q, k, v = random_qkv(grid, 3, 16, torch.float64)
    dense = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    for backend in ("reference", "cpu"):
        out = attention(q, k, v, lower([Full()] * 3, grid), backend=backend)
        torch.testing.assert_close(out, dense)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_unselected_blocks_do_not_matter(backend):
    grid = TokenGrid(5, 8, 16)
    levels = np.full((5, 5), -1, dtype=np.int8)
    levels[:, 1] = 0
    table = BlockTable.from_levels(grid, [levels], ["raster"], [0])
    q, k, v = random_qkv(grid, 1, 16)
    before = attention(q, k, v, table, backend=backend)
    unused = [i for i in range(grid.seq_len) if i // 128 != 1]
    k[:, unused], v[:, unused] = torch.nan, torch.nan
    assert torch.equal(attention(q, k, v, table, backend=backend), before)


def test_a_row_without_keys_gives_zero_and_minus_infinity():
    grid = TokenGrid(2, 8, 8)
    q, k, v = random_qkv(grid, 1, 16)
    for backend in ("reference", "cpu"):
        out, lse = attention(q, k, v, lower([Skip()], grid), backend=backend, return_lse=True)
        assert not out.any()
        assert (lse == -torch.inf).all()


def test_permuting_heads_permutes_outputs():
    grid = TokenGrid(3, 7, 9)
    patterns = [Full(), Window(1, 1, 1), Window(0, 2, 2)]
    q, k, v = random_qkv(grid, 3, 16)
    out = attention(q, k, v, lower(patterns, grid))
    turn = [2, 0, 1]
    turned = attention(
        q[:, :, turn], k[:, :, turn], v[:, :, turn], lower([patterns[i] for i in turn], grid)
    )
    torch.testing.assert_close(turned, out[:, :, turn])


def test_pooling_bias_counts_each_key_once():
    """With equal keys in every group, a pooled table equals dense attention at every level."""
    grid = TokenGrid(2, 8, 16)
    q, k, v = random_qkv(grid, 1, 16, torch.float64)
    k, v = (
        x.unflatten(1, (-1, 8))[:, :, :1].expand(-1, -1, 8, -1, -1).flatten(1, 2) for x in (k, v)
    )
    dense = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    for level in range(4):
        maps = [np.full((2, 2), level, dtype=np.int8)]
        table = BlockTable.from_levels(grid, maps, ["raster"], [0])
        torch.testing.assert_close(attention(q, k, v, table, backend="reference"), dense)


def _small():
    grid = TokenGrid(2, 3, 4)
    return (*random_qkv(grid, 2, 16), lower([Full()] * 2, grid))


def test_bad_inputs_are_refused():
    q, k, v, table = _small()
    cases = [
        (ValueError, "must share one shape", (q, k[:, :5], v, table), {}),
        (ValueError, "the table is for 24 tokens", (q[:, :5], k[:, :5], v[:, :5], table), {}),
        (ValueError, "and 2 heads", (q[:, :, :1], k[:, :, :1], v[:, :, :1], table), {}),
        (TypeError, "must share one dtype", (q.long(), k.long(), v.long(), table), {}),
        (TypeError, "must share one dtype", (q, k.half(), v, table), {}),
        (ValueError, "unknown backend 'cuda'", (q, k, v, table), {"backend": "cuda"}),
        (ValueError, "must be on one device", (q, k.to("meta"), v, table), {}),
        (RuntimeError, "no backward pass", (q.clone().requires_grad_(), k, v, table), {}),
    ]
    for error, message, args, options in cases:
        with pytest.raises(error, match=message):
            attention(*args, **options)


def test_a_table_checks_its_maps():
    grid = TokenGrid(2, 8, 8, after=3)
    good = np.zeros((2, 2), dtype=np.int8)
    cases = [
        (([], [], [0]), "at least one map"),
        (([good], ["raster"], [1]), "head rows must lie in 0..0"),
        (([good[:1]], ["raster"], [0]), "must be"),
        (([good + 4], ["raster"], [0]), "levels must lie in"),
        (([good + 1], ["raster"], [0]), "blocks of exact tokens cannot be pooled"),
        (([good], ["spiral"], [0]), "unknown order"),
    ]
    for args, message in cases:
        with pytest.raises(ValueError, match=message):
            BlockTable.from_levels(grid, *args)
