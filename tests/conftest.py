"""Shared helpers: random inputs, random tables and tolerances derived from eager attention."""

import os
import random

import numpy as np
import pytest
import torch

from ajour import BlockTable, TokenGrid
from ajour.backends.reference import attend as reference

torch.set_num_threads(1)
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        left_out = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def _tiny_grids_are_chosen_for(monkeypatch):
    """Automatic plans choose patterns on the tiny grids of tests too."""
    monkeypatch.setattr("ajour.pipelines.auto.LEAST_BLOCKS", 0)


def random_table(
    grid: TokenGrid, heads: int, seed: int, levels: int = 4, rows: int = 3
) -> BlockTable:
    """Rows of random levels in random orders; some query blocks have no keys."""
    rng = np.random.default_rng(seed)
    maps = []
    for _ in range(rows):
        drop = rng.random()
        level = rng.integers(0, levels, (grid.blocks, grid.blocks)).astype(np.int8)
        level[rng.random(level.shape) < drop] = -1
        level[:, grid.video_blocks :] = np.minimum(level[:, grid.video_blocks :], 0)
        level[rng.random(grid.blocks) < 0.1] = -1
        maps.append(level)
    orders = rng.choice(["raster", "column", "hilbert", "bisection"], rows).tolist()
    return BlockTable.from_levels(grid, maps, orders, rng.integers(0, rows, heads).tolist())


def random_qkv(grid, heads, head_dim, dtype=torch.float32, batch=1, device="cpu"):
    """Fresh normal q, k, v for a grid."""
    shape = (batch, grid.seq_len, heads, head_dim)
    return tuple(torch.randn(shape, device=device).to(dtype) for _ in range(3))


def assert_matches_oracle(q, k, v, table, out, lse, prologue=None):
    """At most twice the error of same-dtype eager attention against float64, plus 2 ulp."""
    scale = q.shape[-1] ** -0.5
    exact, exact_lse = reference(*(x.double() for x in (q, k, v)), table, scale, prologue)
    eager, eager_lse = reference(q, k, v, table, scale, prologue, compute_dtype=q.dtype)
    _assert_close(out.double(), exact, eager.double(), q.dtype)
    silent = exact_lse == -torch.inf
    assert torch.equal(lse == -torch.inf, silent)
    kept = [x.masked_fill(silent, 0) for x in (lse.double(), exact_lse.double(), eager_lse)]
    _assert_close(kept[0], kept[1], kept[2].double(), q.dtype)


def _assert_close(got, exact, eager, dtype):
    ulp = torch.finfo(dtype).eps * max(exact.abs().max().item(), 1e-30)
    error, allowed = (got - exact).abs(), (eager - exact).abs()
    assert torch.isfinite(got).all()
    assert error.max() <= 2 * allowed.max() + 2 * ulp
    assert error.mean() <= allowed.mean() + 2 * ulp
