"""Empty inputs of the operator: every backend gives what the reference gives, or the same error."""

import math

import pytest
import torch

import ajour
from ajour import BACKENDS, Full, Norm, Prologue, Pyramid, Rope, Skip, TokenGrid, lower
from ajour.backends.reference import attend as reference
from ajour.capture import block_mass, self_similarity

GRID = TokenGrid(2, 9, 8, before=3)


def backends():
    """Every backend that can run here; Triton's kernels in the interpreter."""
    return ["reference", "cpu", "triton", None]


@pytest.fixture(params=backends(), ids=str)
def backend(request, monkeypatch):
    if request.param == "triton":
        pytest.importorskip("triton")
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    return request.param


@pytest.mark.parametrize("patterns", [[Full(), Skip()], [Pyramid(0, 1, 1)] * 2], ids=["0", "3"])
@pytest.mark.parametrize("prologue", [False, True])
def test_an_empty_batch_gives_an_empty_result(backend, patterns, prologue):
    table = lower(patterns, GRID)
    q = torch.randn(0, GRID.seq_len, 2, 16)
    given = None
    if prologue:
        turns = torch.randn(GRID.seq_len, 16)
        norm = Norm(torch.randn(32), 1e-6)
        given = Prologue(norm, norm, Rope(turns, turns))
    out, lse = ajour.attention(q, q, q, table, prologue=given, backend=backend, return_lse=True)
    wanted = reference(q, q, q, table, 0.25)
    assert (out.shape, out.dtype) == (wanted[0].shape, wanted[0].dtype)
    assert (lse.shape, lse.dtype) == (wanted[1].shape, wanted[1].dtype)


def test_no_heads_give_an_empty_result(backend):
    table = lower([Full()], GRID).with_heads([])
    q = torch.randn(2, GRID.seq_len, 0, 16)
    out, lse = ajour.attention(q, q, q, table, backend=backend, return_lse=True)
    assert out.shape == q.shape
    assert lse.shape == (2, 0, GRID.seq_len)


def test_no_channels_are_refused(backend):
    q = torch.randn(1, GRID.seq_len, 1, 0)
    with pytest.raises(ValueError, match="head_dim of at least 1"):
        ajour.attention(q, q, q, lower([Full()], GRID), backend=backend)


def test_no_tokens_are_refused(backend):
    q = torch.randn(1, 0, 1, 16)
    with pytest.raises(ValueError, match="got 0 tokens"):
        ajour.attention(q, q, q, lower([Full()], GRID), backend=backend)
    with pytest.raises(ValueError, match="at least 1 token"):
        TokenGrid(0, 1, 1)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_is_positive_and_finite(backend, scale):
    q = torch.randn(1, GRID.seq_len, 1, 16)
    with pytest.raises(ValueError, match="scale must be positive"):
        ajour.attention(q, q, q, lower([Full()], GRID), scale=scale, backend=backend)


def test_an_explicit_backend_is_checked_for_empty_inputs_too():
    q = torch.randn(0, GRID.seq_len, 1, 16)
    with pytest.raises(RuntimeError, match="'hopper' cannot run this"):
        ajour.attention(q, q, q, lower([Full()], GRID), backend="hopper")
    assert set(backends()) - {None} == set(BACKENDS) - {"hopper"}


def test_nothing_to_measure_on_is_said(backend):
    q = torch.randn(0, GRID.seq_len, 1, 16)
    with pytest.raises(ValueError, match="at least one sample"):
        block_mass(q, q, GRID, "raster", backend=backend)
    with pytest.raises(ValueError, match="at least one sample"):
        self_similarity(q, GRID, "raster")


def test_a_compiled_call_takes_an_empty_batch():
    table = lower([Full()], GRID)
    call = torch.compile(lambda q: ajour.attention(q, q, q, table), backend="eager")
    assert call(torch.randn(0, GRID.seq_len, 1, 16)).shape == (0, GRID.seq_len, 1, 16)


def test_a_grid_has_as_many_tokens_as_a_table_can_number():
    with pytest.raises(ValueError, match="at most 2147483647 tokens"):
        TokenGrid(999_999, 999_999, 999_999)
    with pytest.raises(ValueError, match="at most 2147483647 tokens"):
        TokenGrid(1, 1, 1, after=2**31)
