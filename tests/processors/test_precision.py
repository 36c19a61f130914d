"""Dtypes that mix in a pass: autocast, weights kept in another dtype, quantised weights."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import ajour
from ajour import Auto, TokenGrid
from ajour.lowering import density
from ajour.processors import family_of, fused
from tests.processors.families import FULL, SPARSE, call, make, sparse
from tests.processors.models import CASES, FIRST_OF_KIN, HEAD_DIM

# Mochi turns autocast on in float32, of which torch warns on CPU.
pytestmark = [
    pytest.mark.filterwarnings("ignore:In CPU autocast"),
    pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight"),
]


@pytest.fixture(params=["fused", "unfused"])
def _norms(request, monkeypatch):
    """Norms in the operator, or in their modules as with hooks for offloading."""
    if request.param == "unfused":
        monkeypatch.setattr(fused, "obstacle", lambda *_: "not here")


@pytest.mark.usefixtures("_norms")
@pytest.mark.parametrize("name", FIRST_OF_KIN)
def test_autocast(name):
    grid = (1, 12, 13) if name in ("Flux", "Flux2", "QwenImage", "ZImage") else (3, 7, 9)
    transformer, inputs = make(name), CASES[name].inputs(grid, 7, 1)
    with sparse(transformer, SPARSE, strict=True):
        exact = call(transformer, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        stock = call(transformer, inputs)
        with sparse(transformer, FULL, strict=True):
            full = call(transformer, inputs)
        with sparse(transformer, SPARSE, strict=True):
            out = call(transformer, inputs)
    assert (full - stock).norm() < 0.02 * stock.norm()
    assert (out - exact).norm() < 0.05 * exact.norm()


def plan_of(transformer, inputs):
    """The automatic plan of a run of two steps."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    with ajour.sparse(transformer, Auto(0.5), scheduler=scheduler, strict=True):
        scheduler.set_timesteps(2)
        for step in range(2):
            assert call(transformer, inputs).isfinite().all()
            scheduler.step(torch.zeros(1, 4), scheduler.timesteps[step], torch.zeros(1, 4))
        return ajour.current_plan(transformer)


def with_lopsided_heads(name):
    """A transformer whose first head hardly counts after the output projection."""
    transformer = make(name)
    for layer in family_of(transformer).layers(transformer):
        layer.to_out[0].weight[:, :HEAD_DIM] *= 1e-3
    return transformer


class Bytes(torch.nn.Module):
    """A linear layer that keeps its weight as bytes and a scale."""

    def __init__(self, linear):
        super().__init__()
        scale = linear.weight.abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("bytes", (linear.weight / scale).round().to(torch.int8))
        self.bias = linear.bias

    def forward(self, x):
        weight = self.bytes.to(x.dtype) * self.scale.to(x.dtype)
        return torch.nn.functional.linear(x, weight, self.bias)


def as_bytes(transformer):
    for layer in family_of(transformer).layers(transformer):
        layer.to_out[0] = Bytes(layer.to_out[0])


def by_torchao(transformer):
    quantization = pytest.importorskip("torchao.quantization")
    quantization.quantize_(transformer, quantization.Int8WeightOnlyConfig())


def stored_in_eight_bits(transformer):
    transformer.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("convert", [as_bytes, by_torchao, stored_in_eight_bits])
@pytest.mark.parametrize("name", ["Wan", "CogVideoX"])
def test_weights_of_eight_bits_weigh_heads_as_they_run(name, convert):
    transformer, inputs = with_lopsided_heads(name), CASES[name].inputs((3, 7, 9), 7, 1)
    plans, densities = [plan_of(transformer, inputs)], []
    convert(transformer)
    plans.append(plan_of(transformer, inputs))
    grid = TokenGrid(3, 7, 9, before=7 if name == "CogVideoX" else 0)
    for plan in plans:
        for assignment in plan.assignments:
            layers = [plan.layer(assignment, i) for i in range(plan.model["layers"])]
            heads = zip(*layers, strict=True)
            densities.append([sum(density(pattern, grid) for pattern in head) for head in heads])
    for first, second in densities:
        assert second > 1.5 * first
    with sparse(transformer, SPARSE, strict=True):
        assert call(transformer, inputs).isfinite().all()
