"""Norms and rotary embedding: what stock code leaves to the operator, and what it does not."""

import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from diffusers.hooks import apply_group_offloading
from diffusers.models.normalization import MochiRMSNorm, RMSNorm

from ajour import Full, TokenGrid, lower
from ajour.ops import attention
from ajour.processors.fused import Fusion, norm_of
from ajour.processors.processor import LayerState
from ajour.processors.stock import stand_in_for
from ajour.prologue import Rope, rotate
from tests.processors.families import SPARSE, call, make, sparse
from tests.processors.models import CASES

CPU = torch.device("cpu")
JOINT = ("Flux", "Flux2", "HunyuanVideo", "HunyuanVideo15", "QwenImage")


def rms(kind, **options):
    norm = kind(16, **{"eps": 1e-6} | options).requires_grad_(False)
    if norm.weight is not None:
        norm.weight.uniform_(0.5, 2)
    return norm


class Attention(torch.nn.Module):
    """What `Fusion` sees of an attention module; with `added`, text has norms of its own."""

    def __init__(self, norms, added=()):
        super().__init__()
        self.add_q_proj = torch.nn.Linear(1, 1) if added else None
        self.norm_q = self.norm_k = norms
        self.norm_added_q = self.norm_added_k = added or None


@pytest.mark.parametrize("kind", [torch.nn.RMSNorm, RMSNorm])
@pytest.mark.parametrize("text_first", [False, True])
@pytest.mark.parametrize("added", [False, True])
def test_what_is_taken_out_of_the_module_is_put_into_the_prologue(kind, text_first, added):
    image, text = (torch.randn(2, n, 3, 16) for n in (7, 5))
    attn = Attention(rms(kind), rms(kind) if added else None)
    tables = torch.randn(2, 12, 16)
    arguments = {"hidden_states": image, "encoder_hidden_states": text, "other": 1,
                 "image_rotary_emb": tables}  # fmt: skip
    left, prologue = Fusion(text_first).take(attn, arguments)
    assert "image_rotary_emb" not in arguments
    assert arguments["other"] == 1
    assert left.norm_q(image) is image
    assert left.add_q_proj is attn.add_q_proj
    normed = attn.norm_q(image), (attn.norm_added_q or attn.norm_q)(text)
    order = slice(None, None, -1 if text_first else 1)
    joint = torch.cat((image, text)[order], dim=1)
    expected = rotate(torch.cat(normed[order], dim=1), Rope(*tables))
    torch.testing.assert_close(prologue.apply(joint, joint), (expected, expected))


def offloaded():
    return cpu_offload(rms(RMSNorm), CPU)


UNKNOWN = {
    "MochiRMSNorm is not a known RMS norm": lambda: MochiRMSNorm(16, 1e-6),
    "LayerNorm is not a known RMS norm": lambda: torch.nn.LayerNorm(16),
    "no weight, or a bias too": lambda: rms(RMSNorm, bias=True),
    "no weight, or a bias": lambda: rms(torch.nn.RMSNorm, elementwise_affine=False),
    "eps depends on the dtype": lambda: rms(torch.nn.RMSNorm, eps=None),
    "different eps": lambda: rms(RMSNorm, eps=1e-3),
    "has no norm": lambda: None,
    "hook replaces": offloaded,
}


@pytest.mark.parametrize("reason", list(UNKNOWN))
@pytest.mark.parametrize("place", [0, 1])
def test_other_norms_stay_with_their_module(reason, place):
    modules = [rms(RMSNorm), rms(RMSNorm)]
    modules[place] = UNKNOWN[reason]()
    assert reason in norm_of(modules, 5, CPU)
    attn = Attention(rms(RMSNorm), rms(RMSNorm))
    names = ("norm_k", "norm_added_k")
    for name, module in zip(names, modules, strict=True):
        setattr(attn, name, module)
    x = torch.randn(2, 5, 16)
    left, prologue = Fusion().take(attn, {"hidden_states": x, "encoder_hidden_states": x})
    assert prologue.q_norm is not None
    assert prologue.k_norm is None
    assert [getattr(left, name) for name in names] == modules


def test_a_hook_that_offloads_nothing_leaves_the_norm_to_the_operator():
    norm = add_hook_to_module(rms(RMSNorm), AlignDevicesHook(CPU))
    assert not isinstance(norm_of([norm, norm], 5, CPU), str)


def test_a_group_offloading_hook_keeps_the_norm():
    model = torch.nn.Sequential(rms(RMSNorm))
    apply_group_offloading(model, onload_device=CPU, offload_device=CPU,
                           offload_type="leaf_level")  # fmt: skip
    assert "hook replaces" in norm_of([model[0]], 5, CPU)


def test_a_weight_elsewhere_is_not_read():
    assert norm_of([rms(RMSNorm).to("meta")], 5, CPU) == "the norm's weight is on meta"
    assert norm_of([None, None], 5, CPU) is None


def test_attention_that_runs_stock_is_normalised_and_rotated_too():
    transformer = make("Flux")
    attn = transformer.transformer_blocks[0].attn
    heads, head_dim, width = attn.heads, attn.head_dim, attn.heads * attn.head_dim
    grid = TokenGrid(1, 3, 4, before=5)
    image, text = torch.randn(1, 12, width), torch.randn(1, 5, width)
    angle = torch.randn(17, head_dim // 2).repeat_interleave(2, dim=1)
    rotation = angle.cos(), angle.sin()
    mask = torch.rand(1, 1, 17, 17) > 0.5  # a block table knows nothing of it
    state = LayerState((lower([Full()] * heads, grid),), tokens=17, in_pass=True)
    ours = stand_in_for(type(attn.processor), Fusion(text_first=True))(attn.processor, state)
    for hidden in (None, mask):
        expected = attn.processor(attn, image, text, hidden, rotation)
        torch.testing.assert_close(ours(attn, image, text, hidden, image_rotary_emb=rotation),
                                   expected, rtol=1e-4, atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("name", [*JOINT, "Wan", "SkyReelsV2", "CogVideoX"])
def test_the_operator_normalises_and_rotates(name, monkeypatch):
    prologues = []

    def spy(q, k, v, table, *, prologue, backend):
        prologues.append(prologue)
        return attention(q, k, v, table, prologue=prologue, backend=backend)

    monkeypatch.setattr("ajour.processors.processor.attention", spy)
    transformer, inputs = make(name), CASES[name].inputs((3, 7, 9), 7, 1)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
    assert all(prologue.rope is not None for prologue in prologues)
    norms = [norm for prologue in prologues for norm in (prologue.q_norm, prologue.k_norm)]
    if name == "CogVideoX":  # layer norms
        assert norms == [None] * len(norms)
        return
    assert None not in norms
    two_weights = [norm.second is not None for norm in norms]
    assert any(two_weights) == (name in JOINT)
    single = ("Flux", "Flux2", "HunyuanVideo", "Wan", "SkyReelsV2")
    assert all(two_weights) == (name not in single)
