"""The Hopper backend without a GPU: it compiles for sm_90, and says what it needs."""

import gc
import weakref
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from ajour import BLOCK, TokenGrid, attention
from ajour.backends import backend_reason
from ajour.backends.hopper.work import work_items
from tests.accel.test_triton import aligned
from tests.conftest import random_qkv, random_table

triton = pytest.importorskip("triton", "3.6")

SHARED_LIMIT = 227 * 1024


@pytest.mark.parametrize("levels", [1, 4])
@pytest.mark.parametrize(("dtype", "head_dim"), [("bf16", 64), ("bf16", 128), ("fp16", 128)])
def test_the_kernel_compiles_offline(dtype, head_dim, levels):
    from triton.backends.compiler import GPUTarget
    from triton.experimental.gluon._runtime import GluonASTSource

    from ajour.backends.hopper.kernel import attend_kernel
    from ajour.backends.hopper.launch import OPTIONS, constants, shared_layout

    def descriptor(rows, channels):
        return f"tensordesc<{dtype}[{rows}, {channels}],{shared_layout()!r}>"

    fixed: dict = constants(head_dim, levels)
    pooled = {f"{x}{h}": 128 >> h for h in (1, 2, 3) for x in "kv"}
    if levels == 1:
        fixed |= dict.fromkeys(pooled)
    kinds = {"q": descriptor(64, head_dim), "scale": "fp32", "out": f"*{dtype}", "lse": "*fp32"}
    kinds |= dict.fromkeys(("k0", "v0"), descriptor(128, head_dim))
    kinds |= {name: descriptor(rows, 64) for name, rows in pooled.items()}
    kinds |= dict.fromkeys(("slots", "valid", "work", "ids"), "*i32")
    names = attend_kernel.arg_names
    signature = {n: "constexpr" if n in fixed else kinds.get(n, "i32") for n in names}
    compiled = triton.compile(
        GluonASTSource(attend_kernel, signature, fixed, aligned(signature)),
        target=GPUTarget("cuda", 90, 32),
        options=OPTIONS,
    )
    assert compiled.metadata.shared <= SHARED_LIMIT
    assert "wgmma.mma_async" in compiled.asm["ptx"]
    assert "setmaxnreg.inc" in compiled.asm["ptx"]


@pytest.mark.parametrize(
    ("capability", "dtype", "head_dim", "reason"),
    [
        ((9, 0), torch.bfloat16, 64, None),
        ((9, 0), torch.float16, 128, None),
        ((9, 0), torch.float32, 128, "float16 and bfloat16"),
        ((9, 0), torch.bfloat16, 96, "64 or 128"),
        ((10, 0), torch.bfloat16, 128, "compute capability 9.0"),
    ],
)
def test_it_says_what_it_needs(monkeypatch, capability, dtype, head_dim, reason):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    actual = backend_reason("hopper", torch.device("cuda"), dtype, head_dim)
    assert (actual is None) if reason is None else (reason in actual)
    assert "Hopper GPU" in backend_reason("hopper", torch.device("cpu"), dtype, head_dim)


def described(offsets, ids, valid):
    """What `masked_tiles` says of one query block's lists, computed entry by entry."""
    lists = [ids[a:b] for a, b in pairwise(offsets)]
    summary, words, first = 0, [], None
    for block in lists[0]:
        if valid[block] < BLOCK:
            summary += 1
            words.append(4 + 64 * valid[block])
    if lists[0]:
        first = 4 + 64 * valid[lists[0][0]]
    for level in (1, 2, 3):
        if lists[level]:
            left = len(lists[level]) % 2**level or 2**level
            word = level + 4 * left + 64 * valid[lists[level][0]]
            first = word if first is None else first
            if left < 2**level or valid[lists[level][0]] < BLOCK:
                summary += 2 ** (level + 1)
                words.append(word)
    words = words or ([] if first is None else [first])
    return [summary, *words, *[0] * (5 - len(words))]


def check_items(table):
    """Every (head, query block) has one item, which describes its lists."""
    ids, valid = table.ids.tolist(), table.valid.tolist()
    seen = set()
    for item in work_items(table).tolist():
        head, block, offsets, order = item[0], item[1], item[2:7], item[7]
        row = int(table.head_rows[head])
        assert offsets == table.offsets[row, block].tolist()
        assert order == table.row_order[row]
        assert item[8:14] == described(offsets, ids, valid)
        assert item[14:] == [0, 0]
        seen.add((head, block))
    assert len(seen) == len(work_items(table)) == table.heads * table.grid.blocks


@pytest.mark.parametrize("seed", range(8))
def test_work_items_say_which_tiles_to_mask(seed):
    rng = np.random.default_rng(seed)
    grid = TokenGrid(*rng.integers(1, 12, 3).tolist(), *rng.integers(0, 200, 2).tolist())
    check_items(random_table(grid, heads=3, seed=seed))


def test_work_items_are_derived_once_for_the_heads_of_a_layer():
    shared = random_table(TokenGrid(3, 9, 11), heads=3, seed=0)
    layers = [shared, shared.with_heads([2, 0]), shared.with_heads([1, 1])]
    items = [work_items(table) for table in layers]
    for table, kept in zip(layers, items, strict=True):
        check_items(table)
        assert work_items(table) is kept
        assert work_items(replace(table)) is kept  # compiled code makes a new table per call


def test_work_items_of_other_lists_are_not_used_again():
    table = random_table(TokenGrid(3, 9, 11), heads=3, seed=0)
    items = work_items(table)
    empty = replace(table, offsets=torch.zeros_like(table.offsets))
    assert not work_items(empty)[:, 2:7].any()
    assert work_items(table) is items


def test_work_items_go_with_the_lists_or_the_heads():
    table = random_table(TokenGrid(3, 9, 11), heads=3, seed=0)
    layer = table.with_heads([1, 2])
    items = [weakref.ref(work_items(x)) for x in (table, layer)]
    del layer
    gc.collect()
    assert [kept() is None for kept in items] == [False, True]
    del table
    gc.collect()
    assert items[0]() is None


def test_other_backends_derive_no_work_items():
    table = random_table(TokenGrid(3, 9, 11), heads=2, seed=0)
    attention(*random_qkv(table.grid, 2, 16), table, backend="cpu")
    assert list(table.derived) == ["cpu"]
