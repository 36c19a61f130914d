"""The operator under torch.compile: one node, no graph break, the same result."""

import gc
import weakref
from functools import partial

import pytest
import torch

from ajour import Prologue, TokenGrid, attention
from ajour.ops import attend
from tests.accel.test_prologue import random_prologue, two_weights
from tests.conftest import random_qkv, random_table

GRID = TokenGrid(2, 7, 11, before=3)


def arguments(prologue):
    table = random_table(GRID, heads=2, seed=0)
    captured = []

    def spy(*args):
        captured.append(args)
        return args[0], args[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ajour.ops.attend", spy)
        patch.setattr("torch.compiler.is_compiling", lambda: True)
        attention(*random_qkv(GRID, 2, 16), table, prologue=prologue, backend="cpu")
    return captured[0]


def made_prologue(kind):
    if kind is None:
        return None
    prologue = random_prologue(2, 16, 3, GRID.video_tokens, kind == "all heads")
    return two_weights(prologue, GRID.before) if kind == "two weights" else prologue


PROLOGUES = pytest.mark.parametrize("prologue", [None, "all heads", "each head", "two weights"])


@PROLOGUES
def test_opcheck(prologue):
    made = made_prologue(prologue) or Prologue()
    torch.library.opcheck(attend, arguments(made), test_utils=("test_schema", "test_faketensor"))


# Dynamo's own imports are noisy.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@PROLOGUES
def test_compiled_equals_eager_without_graph_break(prologue):
    made = made_prologue(prologue)
    tables = [random_table(GRID, heads=2, seed=seed) for seed in (0, 1)]
    q, k, v = random_qkv(GRID, 2, 16)

    def layer(q, k, v, table):
        out = attention(q * 2, k, v, table, prologue=made, backend="cpu")
        return out + 1

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for table in tables:
        torch.testing.assert_close(compiled(q, k, v, table), layer(q, k, v, table))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_calls_are_laid_out_once_per_table():
    q, k, v = random_qkv(GRID, 2, 16)
    compiled = torch.compile(partial(attention, backend="cpu"), fullgraph=True, backend="aot_eager")
    for seed in (0, 1):
        table = random_table(GRID, heads=2, seed=seed)
        compiled(q, k, v, table)
        laid_out = dict(table.derived["cpu"])
        assert sorted(laid_out) == sorted(set(table.head_rows.tolist()))
        compiled(q, k, v, table)
        assert all(table.derived["cpu"][row] is calls for row, calls in laid_out.items())
        lists = weakref.ref(table.offsets)
        del table
        gc.collect()
        assert lists() is None
