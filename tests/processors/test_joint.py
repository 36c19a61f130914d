"""Norms and rotary embedding of joint attention: what is left to the operator, and what is not."""

import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from diffusers.hooks import apply_group_offloading
from diffusers.models.normalization import MochiRMSNorm, RMSNorm

from ajour.ops import attention
from ajour.processors.joint import join, norm_of
from ajour.prologue import normalise
from tests.processors.families import SPARSE, call, make, sparse
from tests.processors.models import CASES

CPU = torch.device("cpu")
JOINT = ("Flux", "Flux2", "HunyuanVideo", "HunyuanVideo15", "QwenImage")


def rms(kind, **options):
    norm = kind(16, **{"eps": 1e-6} | options).requires_grad_(False)
    if norm.weight is not None:
        norm.weight.uniform_(0.5, 2)
    return norm


@pytest.mark.parametrize("kind", [torch.nn.RMSNorm, RMSNorm])
@pytest.mark.parametrize("streams", [1, 2])
def test_the_norm_of_modules_is_what_they_compute(kind, streams):
    parts = [torch.randn(2, n, 3, 16) for n in (5, 7)[:streams]]
    modules = [rms(kind) for _ in parts]
    joint, norm = join(parts, modules)
    expected = torch.cat([module(x) for module, x in zip(modules, parts, strict=True)], dim=1)
    assert torch.equal(joint, torch.cat(parts, dim=1))
    torch.testing.assert_close(normalise(joint, norm), expected)


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
def test_other_norms_are_computed_by_their_modules(reason, place):
    parts = [torch.randn(2, n, 3, 16) for n in (5, 7)]
    modules = [rms(RMSNorm), rms(RMSNorm)]
    modules[place] = UNKNOWN[reason]()
    assert reason in norm_of(modules, 5, CPU)
    joint, norm = join(parts, modules)
    assert norm is None
    expected = [x if m is None else m(x) for x, m in zip(parts, modules, strict=True)]
    assert torch.equal(joint, torch.cat(expected, dim=1))


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


@pytest.mark.parametrize("name", [*JOINT, "Wan", "CogVideoX"])
def test_the_operator_normalises_and_rotates(name, monkeypatch):
    prologues = []

    def spy(q, k, v, table, *, prologue, backend):
        prologues.append(prologue)
        return attention(q, k, v, table, prologue=prologue, backend=backend)

    monkeypatch.setattr("ajour.processors.base.attention", spy)
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
    single = ("Flux", "Flux2", "HunyuanVideo", "Wan")
    assert all(two_weights) == (name not in single)
