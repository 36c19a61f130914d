"""Norm, rotation and packing in one pass: the Triton prologue in the interpreter, against eager."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.normalization import RMSNorm
from diffusers.models.transformers.transformer_qwenimage import apply_rotary_emb_qwen

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


def two_weights(prologue, split):
    """The same prologue with other weights for queries and keys from token `split` on."""
    norms = prologue.q_norm, prologue.k_norm
    made = (replace(n, second=torch.rand_like(n.weight).add(0.5), split=split) for n in norms)
    return Prologue(*made, prologue.rope)


def spread(prologue):
    """The same prologue in tensors that are not contiguous."""
    q, k, rope = prologue.q_norm, prologue.k_norm, prologue.rope

    def strided(x):
        return None if x is None else x.repeat_interleave(2)[::2]

    return Prologue(
        *(replace(n, weight=strided(n.weight), second=strided(n.second)) for n in (q, k)),
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


HEADS, HEAD_DIM, TEXT, IMAGE = 3, 16, 7, 20


def angles(tokens):
    return torch.rand(tokens, HEAD_DIM // 2, dtype=torch.float64) * 100


def tables(angle):
    """Cosines and sines as most models make them."""
    return tuple(f(angle).float().repeat_interleave(2, dim=1) for f in (torch.cos, torch.sin))


def flux(text, image, text_norm, image_norm):
    """Stock FLUX: text first, all tokens rotated."""
    angle = angles(TEXT + IMAGE)
    both = torch.cat([text_norm(text), image_norm(image)], dim=1)
    stock = apply_rotary_emb(both, tables(angle), sequence_dim=1)
    norm = Norm(text_norm.weight, text_norm.eps, image_norm.weight, TEXT)
    return stock, torch.cat([text, image], dim=1), norm, Rope(*tables(angle))


def hunyuan_video(text, image, text_norm, image_norm):
    """Stock HunyuanVideo: text last, video rotated alone."""
    angle = angles(IMAGE)
    rotated = apply_rotary_emb(image_norm(image), tables(angle), sequence_dim=1)
    norm = Norm(image_norm.weight, image_norm.eps, text_norm.weight, IMAGE)
    stock = torch.cat([rotated, text_norm(text)], dim=1)
    return stock, torch.cat([image, text], dim=1), norm, Rope(*tables(angle))


def qwen_image(text, image, text_norm, image_norm):
    """Stock Qwen-Image: text first, complex rotations of each stream."""
    turns = [torch.polar(torch.ones_like(a), a).to(torch.complex64)
             for a in (angles(TEXT), angles(IMAGE))]  # fmt: skip
    normed = text_norm(text), image_norm(image)
    pairs = zip(normed, turns, strict=True)
    stock = torch.cat([apply_rotary_emb_qwen(x, y, use_real=False) for x, y in pairs], dim=1)
    norm = Norm(text_norm.weight, text_norm.eps, image_norm.weight, TEXT)
    table = torch.view_as_real(torch.cat(turns)).flatten(1)
    return stock, torch.cat([text, image], dim=1), norm, Rope(table, table)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("model", "module"),
    [(flux, torch.nn.RMSNorm), (hunyuan_video, RMSNorm), (qwen_image, RMSNorm)],
    ids=["Flux", "HunyuanVideo", "QwenImage"],
)
def test_two_streams_are_as_right_as_stock(model, module, dtype):
    torch.manual_seed(0)
    streams = [torch.randn(2, n, HEADS, HEAD_DIM).to(dtype) for n in (TEXT, IMAGE)]
    norms = [module(HEAD_DIM, eps=1e-6).requires_grad_(False).to(dtype) for _ in range(2)]
    for norm in norms:
        norm.weight.uniform_(0.5, 2)
    stock, joint, norm, rope = model(*streams, *norms)
    Prologue(norm, norm, rope).check(
        TokenGrid(1, 4, 5, before=TEXT), HEADS, HEAD_DIM, torch.device("cpu")
    )
    exact = rotate(normalise(joint.double(), norm), rope)
    ours, _ = Prologue(norm, None, rope).apply(joint, joint)
    assert ours.dtype == dtype
    ulp = torch.finfo(dtype).eps * exact.abs().max()
    error, allowed = ((x.double() - exact).abs() for x in (ours, stock))
    assert allowed.max() <= 8 * ulp  # stock and the definition are the same function
    assert error.max() <= allowed.max() + ulp
    assert error.mean() <= allowed.mean() + ulp / 8


def test_a_split_at_either_end_leaves_one_weight():
    x, first, second = torch.randn(2, 5, 3, 8), torch.rand(8), torch.rand(8)
    for split, weight in ((0, second), (5, first)):
        assert torch.equal(normalise(x, Norm(first, 1e-6, second, split)),
                           normalise(x, Norm(weight, 1e-6)))  # fmt: skip


def test_a_rotation_past_the_last_token_is_not_used():
    x, (cosines, sines) = torch.randn(1, 5, 2, HEAD_DIM), tables(angles(9))
    for start in (0, 2, 5):
        shorter = Rope(cosines[: 5 - start], sines[: 5 - start], start)
        assert torch.equal(rotate(x, Rope(cosines, sines, start)), rotate(x, shorter))


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
        (Prologue(rope=Rope(ones, ones, start=GRID.seq_len + 1)), "start must lie in 0 to"),
        (Prologue(rope=Rope(ones, ones, start=-1)), "start must lie in 0 to"),
        (Prologue(Norm(ones[0], 1e-6, ones[0, :8])), "q_norm: two weights must both have 16"),
        (Prologue(Norm(ones[:2].flatten(), 1e-6, ones[0])), "q_norm: two weights must both"),
        (Prologue(None, Norm(ones[0], 1e-6, ones[0], -1)), "k_norm: split must lie in 0 to 203"),
        (Prologue(None, Norm(ones[0], 1e-6, ones[0], 204)), "k_norm: split must lie in 0 to 203"),
        (Prologue(Norm(ones[0], 1e-6, ones[0].to("meta"))), "q_norm: .* on cpu .*, got meta"),
        (Prologue(Norm(torch.ones(32, device="meta"), 1e-6)), "q_norm: .* on cpu .*, got meta"),
        (Prologue(rope=Rope(ones, ones.to("meta"))), "rope: .* on cpu .*, got meta"),
    ]
    for prologue, message in cases:
        with pytest.raises(ValueError, match=message):
            attention(q, k, v, table, prologue=prologue)


ACROSS, EACH = None, -1
"""Norms over all heads, and over each head; a number in their place is a split of two weights."""

CASES = [
    (GRID, 2, 16, ACROSS, torch.float32, 1), (GRID, 3, 24, ACROSS, torch.float16, 4),
    (GRID, 3, 16, EACH, torch.float32, 4), (TokenGrid(1, 3, 5), 1, 40, ACROSS, torch.float32, 1),
    (TokenGrid(2, 8, 16), 5, 16, ACROSS, torch.float16, 4),
    # Text first and text last, groups of 8, 4, 2 and 1 of the heads, an odd head_dim.
    (GRID, 8, 16, GRID.before, torch.float16, 1), (GRID, 4, 40, 194, torch.float32, 4),
    (TokenGrid(2, 5, 7, after=13), 2, 24, 70, torch.float16, 1),
    (TokenGrid(1, 3, 5, before=130), 1, 16, 130, torch.float32, 4),
    (GRID, 7, 16, 0, torch.float32, 1), (GRID, 2, 16, GRID.seq_len, torch.float32, 1),
]  # fmt: skip


def _child():
    """Run by the test below in a process of its own: the interpreter is chosen at import."""
    for number, (grid, heads, head_dim, norm, dtype, levels) in enumerate(CASES):
        torch.manual_seed(number)
        table = random_table(grid, heads, number, levels=levels)
        fused = torch.randn(2, grid.seq_len, 3, heads, head_dim).to(dtype)  # strided q, k, v
        q, k, v = fused.unbind(2)
        # Rotated: the video, and in every third case all after it too, and more.
        start, tokens = grid.before, grid.video_tokens + (100 if number % 3 == 2 else 0)
        prologue = random_prologue(heads, head_dim, start, tokens, norm is ACROSS, dtype)
        if norm not in (ACROSS, EACH):
            prologue = two_weights(prologue, norm)
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
