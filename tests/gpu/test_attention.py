import os
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from ajour import (
    BlockTable,
    Full,
    Norm,
    Prologue,
    Rope,
    Skip,
    Stripe,
    TokenGrid,
    Window,
    attention,
    lower,
)
from ajour.backends import backend_reason
from tests.conftest import assert_matches_oracle, random_qkv, random_table

GRIDS = [
    TokenGrid(1, 1, 1), TokenGrid(1, 3, 5), TokenGrid(1, 8, 16), TokenGrid(3, 43, 1),
    TokenGrid(1, 1, 257), TokenGrid(4, 10, 25), TokenGrid(3, 7, 9, before=77),
    TokenGrid(4, 9, 11, after=256), TokenGrid(5, 8, 16, before=1, after=511),
]  # fmt: skip
HALF_DTYPES = [torch.float16, torch.bfloat16]
DTYPES = [torch.float16, torch.bfloat16, torch.float32]


def check(grid, heads, head_dim, dtype, table, batch=1):
    """Every GPU backend that takes such tensors against the oracle."""
    q, k, v = random_qkv(grid, heads, head_dim, dtype, batch, device="cuda")
    table = table.to("cuda")
    for backend in ("triton", "hopper"):
        if backend_reason(backend, q.device, dtype, head_dim) is None:
            out, lse = attention(q, k, v, table, backend=backend, return_lse=True)
            assert_matches_oracle(q, k, v, table, out, lse)


@pytest.mark.parametrize("levels", [1, 4])
@pytest.mark.parametrize("head_dim", [40, 64, 80, 96, 128, 256])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_backends_match_the_oracle(grid, dtype, head_dim, levels):
    if dtype == torch.float32 and head_dim > 128:
        pytest.skip("the Triton backend takes float32 heads of at most 128 channels")
    table = random_table(grid, heads=3, seed=head_dim + levels, levels=levels)
    check(grid, 3, head_dim, dtype, table, batch=2)


@pytest.mark.parametrize("seed", range(int(os.environ.get("AJOUR_RANDOM_TABLES", "60"))))
def test_random_grids_and_tables(seed):
    rng = np.random.default_rng(seed)
    grid = TokenGrid(*rng.integers(1, 14, 3).tolist(), *rng.integers(0, 200, 2).tolist())
    heads = int(rng.choice([1, 3, 12]))
    dtype = DTYPES[seed % 3]
    check(grid, heads, int(rng.choice([64, 128])), dtype, random_table(grid, heads, seed, rows=4))


@pytest.mark.xdist_group("large")  # one after the other: the oracle takes up to 40 GB
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(21, 30, 52), (21, 45, 80)], ids=str)
def test_real_grids(shape, dtype, head_dim):
    grid = TokenGrid(*shape)
    table = lower([Window(2, 6, 6), Stripe(6)], grid)
    check(grid, 2, head_dim, dtype, table)


BACKENDS = ["triton", "hopper"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    reason = backend_reason(request.param, torch.device("cuda"), torch.bfloat16, 128)
    if reason is not None:
        pytest.skip(reason)
    return request.param


@pytest.mark.parametrize("dtype", HALF_DTYPES, ids=str)
def test_nan_in_unselected_blocks_changes_nothing(backend, dtype):
    grid = TokenGrid(5, 8, 16)
    levels = np.full((5, 5), -1, dtype=np.int8)
    levels[:, 1] = 0
    table = BlockTable.from_levels(grid, [levels], ["raster"], [0]).to("cuda")
    q, k, v = random_qkv(grid, 1, 64, dtype, device="cuda")
    before = attention(q, k, v, table, backend=backend)
    unused = [i for i in range(grid.seq_len) if i // 128 != 1]
    k[:, unused], v[:, unused] = torch.nan, torch.nan
    assert torch.equal(attention(q, k, v, table, backend=backend), before)


@pytest.mark.parametrize("kind", ["all heads", "each head", "text first", "text last"])
@pytest.mark.parametrize("heads", [1, 12, 24, 25, 40])
@pytest.mark.parametrize("dtype", HALF_DTYPES, ids=str)
def test_prologue(backend, dtype, heads, kind):
    grid = TokenGrid(3, 9, 11, before=7, after=20)
    table = random_table(grid, heads, seed=heads).to("cuda")
    qkv = torch.randn(2, grid.seq_len, 3, heads, 128, device="cuda", dtype=dtype)
    q, k, v = qkv.unbind(2)
    channels = heads * 128 if kind == "all heads" else 128
    weight, other = torch.rand(2, channels, device="cuda").add(0.5).to(dtype)
    second = other if kind.startswith("text") else None
    split = grid.before if kind == "text first" else grid.before + grid.video_tokens
    rotated = grid.seq_len if kind == "text first" else grid.video_tokens
    angle = torch.randn(rotated, 64, device="cuda").repeat_interleave(2, dim=1)
    rope = Rope(angle.cos(), angle.sin(), 0 if kind == "text first" else grid.before)
    prologue = Prologue(Norm(weight, 1e-6, second, split), Norm(weight, 1e-5, second, split), rope)
    out, lse = attention(q, k, v, table, prologue=prologue, backend=backend, return_lse=True)
    assert_matches_oracle(q, k, v, table, out, lse, prologue)


def test_a_row_without_keys_gives_zero_and_minus_infinity(backend):
    grid = TokenGrid(2, 8, 8)
    q, k, v = random_qkv(grid, 1, 64, torch.bfloat16, device="cuda")
    table = lower([Skip()], grid).to("cuda")
    out, lse = attention(q, k, v, table, backend=backend, return_lse=True)
    assert not out.any()
    assert (lse == -torch.inf).all()


def test_repeats_are_bit_identical(backend):
    grid = TokenGrid(5, 20, 20)
    table = random_table(grid, heads=4, seed=1).to("cuda")
    q, k, v = random_qkv(grid, 4, 128, torch.bfloat16, device="cuda")
    first = attention(q, k, v, table, backend=backend)
    assert all(torch.equal(first, attention(q, k, v, table, backend=backend)) for _ in range(100))


def test_strided_inputs(backend):
    grid = TokenGrid(3, 9, 11)
    table = lower([Full(), Window(1, 2, 2)], grid).to("cuda")
    fused = torch.randn(2, grid.seq_len, 3, 2, 64, device="cuda", dtype=torch.bfloat16)
    q, k, v = fused.unbind(2)
    out, lse = attention(q, k, v, table, backend=backend, return_lse=True)
    assert_matches_oracle(q, k, v, table, out, lse)


@pytest.mark.xdist_group("large")
def test_offsets_beyond_two_to_the_31(backend):
    grid = TokenGrid(21, 45, 80)
    heads, batch = 40, 6
    table = lower([Window(0, 2, 2)] * heads, grid).to("cuda")
    q, k, v = random_qkv(grid, heads, 128, torch.bfloat16, batch, device="cuda")
    assert q.numel() > 2**31
    out = attention(q, k, v, table, backend=backend)
    last = attention(q[-1:], k[-1:], v[-1:], table, backend=backend)
    assert torch.equal(out[-1:], last)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_a_table_in_use_never_waits_for_the_device(backend):
    grid = TokenGrid(5, 20, 20)
    tables = [random_table(grid, heads=4, seed=seed).to("cuda") for seed in (0, 1, 2)]
    q, k, v = random_qkv(grid, 4, 128, torch.bfloat16, device="cuda")
    first = attention(q, k, v, tables[0], backend=backend)  # compiles the kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        for table in tables[1:]:
            attention(q, k, v, table, backend=backend)
        again = attention(q, k, v, replace(tables[0]), backend=backend)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(again, first)


# Inductor warns of much, such as of graphs that it captures in parts.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_tables_change_under_compile(backend, mode):
    grid = TokenGrid(3, 9, 11)
    q, k, v = random_qkv(grid, 2, 64, torch.bfloat16, device="cuda")
    compiled = torch.compile(partial(attention, backend=backend), fullgraph=True, mode=mode)
    for seed in (0, 1, 0, 1):
        table = random_table(grid, heads=2, seed=seed).to("cuda")
        for layer in (table, table.with_heads(table.head_rows.flip(0).tolist())):
            expected = attention(q, k, v, layer, backend=backend)
            for _ in range(3):
                assert torch.equal(compiled(q, k, v, layer), expected)


# Dynamo's own imports are noisy.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_second_gpu_needs_not_be_the_current_one(backend):
    grid = TokenGrid(3, 9, 11)
    table = random_table(grid, heads=2, seed=0).to("cuda:1")
    q, k, v = random_qkv(grid, 2, 64, torch.bfloat16, device="cuda:1")
    norm = Norm(torch.ones(64, device="cuda:1", dtype=q.dtype), 1e-6)
    prologue = Prologue(norm, norm)
    assert torch.cuda.current_device() == 0
    out, lse = attention(q, k, v, table, prologue=prologue, backend=backend, return_lse=True)
    assert_matches_oracle(q, k, v, table, out, lse, prologue)
    assert torch.cuda.current_device() == 0
    compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(q, k, v, table, prologue=prologue, backend=backend), out)
