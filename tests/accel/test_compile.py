"""The operator under torch.compile: one node, no graph break, the same result."""

import gc
from functools import partial

import pytest
import torch

from ajour import Prologue, TokenGrid, attention
from ajour.ops import _compiled, attend
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
        _compiled(*random_qkv(GRID, 2, 16), table, prologue, 0.25, "cpu")
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
def test_compiled_calls_are_laid_out_once_per_table(monkeypatch):
    from ajour import ops
    from ajour.backends import cpu

    laid_out = []
    original = cpu._calls
    monkeypatch.setattr(cpu, "_calls", lambda blocks: laid_out.append(1) or original(blocks))
    q, k, v = random_qkv(GRID, 2, 16)
    compiled = torch.compile(partial(attention, backend="cpu"), fullgraph=True, backend="aot_eager")
    gc.collect()  # tables of other tests
    kept, counts = len(ops._derived), []
    for seed in (0, 1):
        table = random_table(GRID, heads=2, seed=seed)
        for _ in range(3):
            compiled(q, k, v, table)
            counts.append(len(laid_out))
        assert len(ops._derived) == kept + 1
        del table
        gc.collect()
    assert counts[0] == counts[2] < counts[3] == counts[5]
