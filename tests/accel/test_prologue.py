"""Norm, rotation and packing in one pass: the Triton prologue in the interpreter, against eager."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from ajour import BlockTable, Norm, Prologue, Rope, TokenGrid, attention
from ajour.prologue import normalise, rotate
from tests.conftest import assert_matches_oracle, random_qkv, random_table

GRID = TokenGrid(3, 7, 9, before=5, after=9)


def random_prologue(heads, head_dim, start=0, tokens=None, across=True, dtype=torch.float32):
    channels = heads * head_dim if across else head_dim
    angle = torch.randn(tokens, head_dim // 2).repeat_interleave(2, dim=1)
    return Prologue(
        Norm(torch.rand(channels).add(0.5).to(dtype), 1e-6),
        Norm(torch.rand(channels).add(0.5).to(dtype), 1e-5),
        Rope(angle.cos(), angle.sin(), start),
    )


def spread(prologue):
    """The same prologue in tensors that are not contiguous."""
    q, k, rope = prologue.q_norm, prologue.k_norm, prologue.rope
    return Prologue(
        *(Norm(n.weight.repeat_interleave(2)[::2], n.eps) for n in (q, k)),
        Rope(rope.cosines.T.contiguous().T, rope.sines.repeat(1, 2)[:, : len(rope.sines[0])],
             rope.start),
    )  # fmt: skip


def test_the_norm_is_rms_norm():
    x = torch.randn(2, 5, 3, 8)
    weight = torch.randn(24)
    expected = F.rms_norm(x.flatten(2), (24,), weight, 1e-6).view_as(x)
    torch.testing.assert_close(normalise(x, Norm(weight, 1e-6)), expected)
    expected = F.rms_norm(x, (8,), weight[:8], 1e-6)
    torch.testing.assert_close(normalise(x, Norm(weight[:8], 1e-6)), expected)


def test_the_rotation_is_a_complex_product():
    x, angle = torch.randn(2, 5, 3, 8), torch.randn(3, 4)
    rope = Rope(*(f(angle).repeat_interleave(2, dim=1) for f in (torch.cos, torch.sin)), start=1)
    turned = torch.view_as_complex(x[:, 1:4].unflatten(-1, (4, 2)))
    turned = turned * torch.polar(torch.ones_like(angle), angle)[None, :, None]
    expected = x.clone()
    expected[:, 1:4] = torch.view_as_real(turned).flatten(-2)
    torch.testing.assert_close(rotate(x, rope), expected)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_the_operator_applies_it(backend):
    table = random_table(GRID, heads=3, seed=0)
    q, k, v = random_qkv(GRID, 3, 16)
    prologue = random_prologue(3, 16, start=5, tokens=GRID.video_tokens)
    fused = attention(q, k, v, table, prologue=prologue, backend=backend)
    apart = attention(*prologue.apply(q, k), v, table, backend=backend)
    torch.testing.assert_close(fused, apart, rtol=1e-5, atol=1e-5)
    plain = attention(q, k, v, table, backend=backend)
    assert not torch.allclose(fused, plain, atol=1e-2)


def test_what_does_not_fit_is_refused():
    table = random_table(GRID, heads=2, seed=0)
    q, k, v = random_qkv(GRID, 2, 16)
    ones = torch.ones(GRID.seq_len, 16)
    cases = [
        (Prologue(q_norm=Norm(torch.ones(8), 1e-6)), "q_norm.*32 channels.*or 16"),
        (Prologue(k_norm=Norm(torch.ones(2, 16), 1e-6)), "k_norm"),
        (Prologue(rope=Rope(ones, ones[:, :8])), r"must both be \(n, 16\)"),
        (Prologue(rope=Rope(ones, ones, start=1)), "must lie in 0 to"),
        (Prologue(Norm(torch.ones(32, device="meta"), 1e-6)), "q_norm: .* on cpu .*, got meta"),
        (Prologue(rope=Rope(ones, ones.to("meta"))), "rope: .* on cpu .*, got meta"),
    ]
    for prologue, message in cases:
        with pytest.raises(ValueError, match=message):
            attention(q, k, v, table, prologue=prologue)


CASES = [
    (GRID, 2, 16, True, torch.float32, 1), (GRID, 3, 24, True, torch.float16, 4),
    (GRID, 3, 16, False, torch.float32, 4), (TokenGrid(1, 3, 5), 1, 40, True, torch.float32, 1),
    (TokenGrid(2, 8, 16), 5, 16, True, torch.float16, 4),
]  # fmt: skip


def _child():
    """Run by the test below in a process of its own: the interpreter is chosen at import."""
    for number, (grid, heads, head_dim, across, dtype, levels) in enumerate(CASES):
        torch.manual_seed(number)
        table = random_table(grid, heads, number, levels=levels)
        fused = torch.randn(2, grid.seq_len, 3, heads, head_dim).to(dtype)  # strided q, k, v
        q, k, v = fused.unbind(2)
        prologue = random_prologue(heads, head_dim, grid.before, grid.video_tokens, across, dtype)
        if number % 2:
            prologue = spread(prologue)
        out, lse = attention(q, k, v, table, prologue=prologue, backend="triton", return_lse=True)
        try:
            assert_matches_oracle(q, k, v, table, out, lse, prologue)
            verdict = "ok"
        except AssertionError as error:
            verdict = f"failed {error}"
        print(f"{number} {verdict}", flush=True)


def test_the_interpreter_matches_the_oracle():
    env = os.environ | {"TRITON_INTERPRET": "1"}
    code = "from tests.accel.test_prologue import _child; _child()"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert run.stdout.splitlines() == [f"{n} ok" for n in range(len(CASES))], run.stderr[-2000:]


def test_places_invert_slots():
    table: BlockTable = random_table(GRID, heads=2, seed=1)
    for slots, places in zip(table.slots, table.places, strict=True):
        assert torch.equal(slots[places.long()], torch.arange(GRID.seq_len, dtype=torch.int32))
        empty = torch.nonzero(slots < 0).flatten()
        assert torch.equal(empty, table.empty_slots)
