"""Captured maps on a GPU: right, and without ever waiting for it once a grid is known."""

import pytest
import torch

from ajour import Captured, Stripe, TokenGrid, attention, lower
from ajour.capture import CapturedRows, block_mass, capture, expand
from tests.conftest import assert_matches_oracle, random_qkv

GRIDS = [
    TokenGrid(4, 10, 25),
    TokenGrid(5, 8, 16, before=1, after=511),
    TokenGrid(1, 3, 5),
]
PATTERNS = [
    Captured([0.2] * 4),
    Captured([0.15, 0.25, 0.45, 1.0], order="raster"),
    Captured([0.5, 0.6, 0.7, 0.8], share_of="attention", min_similarity=[0.1, 0.1, 0.1]),
    Captured([0.1, 0.1, 0.3, 1.0], scope="layer", first_frame=True),
]


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_measured_rows_match_the_oracle(grid, dtype, pattern):
    q, k, v = random_qkv(grid, 3, 64, dtype, batch=2, device="cuda")
    rows = CapturedRows.of(capture(q, k, grid, pattern)[[0, 2]], (0, 2), pattern)
    table = lower([pattern, Stripe(2), pattern], grid).to("cuda")
    table = expand([table], [[rows]])[0]
    out, lse = attention(q, k, v, table, return_lse=True)
    assert_matches_oracle(q, k, v, table, out, lse)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("head_dim", [40, 64, 128])
@pytest.mark.parametrize("grid", [*GRIDS, TokenGrid(9, 20, 30, after=77)], ids=str)
def test_mass_is_as_right_as_eager(grid, head_dim, dtype, monkeypatch):
    q, k, _ = random_qkv(grid, 3, head_dim, dtype, batch=2, device="cuda")
    mass = block_mass(q, k, grid, "bisection", backend="triton")
    exact = block_mass(q.double(), k.double(), grid, "bisection", backend="reference")
    # The tolerance comes from logits in the dtype of the inputs.
    monkeypatch.setattr(torch, "promote_types", lambda dtype, _: dtype)
    eager = block_mass(q, k, grid, "bisection", backend="reference")
    error, allowed = ((x - exact).abs().max() for x in (mass, eager))
    assert error <= 2 * allowed + torch.finfo(torch.float32).eps


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_nothing_waits_for_the_device(pattern):
    grid = TokenGrid(9, 20, 30, after=77)
    q, k, v = random_qkv(grid, 4, 64, torch.bfloat16, device="cuda")
    table = lower([pattern] * 4, grid).to("cuda")

    def step(heads):
        levels = capture(q, k, grid, pattern)[: len(heads)]
        rows = CapturedRows.of(levels, heads, pattern)
        attention(q, k, v, expand([table], [[rows]])[0])

    step(range(4))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for heads in (range(4), (0, 2, 3), (1,)):
            step(heads)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_mass_is_measured_on_a_gpu_that_is_not_the_current_one():
    q, k, _ = random_qkv(GRIDS[0], 2, 64, torch.bfloat16, device="cuda:1")
    mass = block_mass(q, k, GRIDS[0], "raster")
    expected = block_mass(q.to("cuda:0"), k.to("cuda:0"), GRIDS[0], "raster")
    assert torch.equal(mass.cpu(), expected.cpu())
