"""Every family: full is stock, off is bit-identical, sparse is the same on every backend."""

import inspect

import pytest
import torch

import ajour
from ajour.pipelines.session import session_of
from ajour.processors import Obstacle, family_of
from tests.processors.families import FULL, SPARSE, assert_equals_stock, call, make, output, sparse
from tests.processors.models import CASES

# Mochi turns autocast on in float32, of which torch warns on CPU.
# Kandinsky norms in float32 with weights of the model's dtype, of which torch warns too.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast", "ignore:Mismatch dtype")

SHAPES = [
    ((1, 1, 1), 1, 1),
    ((1, 3, 5), 7, 2),
    ((3, 7, 9), 77, 2),
    ((1, 16, 17), 7, 1),
    ((13, 3, 2), 77, 1),
    ((5, 8, 8), 1, 1),
]
families = pytest.mark.parametrize("name", list(CASES))
shapes = pytest.mark.parametrize(
    ("name", "grid", "text", "batch"),
    [
        (name, *shape)
        for name, case in CASES.items()
        for shape in (SHAPES[2:4] if case.kin else SHAPES)
        if case.fits(*shape[:2])
    ],
    ids=str,
)


@shapes
def test_a_full_plan_equals_stock(name, grid, text, batch):
    assert_equals_stock(make(name), CASES[name].inputs(grid, text, batch))


@families
def test_a_full_plan_equals_stock_in_bfloat16(name):
    assert_equals_stock(make(name), CASES[name].inputs((3, 7, 9), 7, 1), torch.bfloat16)


@shapes
def test_a_sparse_plan_runs_the_same_on_every_backend(name, grid, text, batch):
    transformer, inputs = make(name), CASES[name].inputs(grid, text, batch)
    out = {}
    for backend in ("reference", "cpu"):
        with sparse(transformer, SPARSE, backend=backend, strict=True):
            out[backend] = call(transformer, inputs)
            assert ajour.summary(transformer).grid == str(CASES[name].grid(grid, text))
    torch.testing.assert_close(out["cpu"], out["reference"], rtol=1e-4, atol=1e-5)
    stock = call(transformer, inputs)
    one_block = grid[0] * grid[1] * grid[2] <= 128
    assert torch.allclose(out["cpu"], stock, rtol=1e-4, atol=1e-5) == one_block


@families
def test_off_is_bit_identical(name):
    transformer, inputs = make(name), CASES[name].inputs((3, 7, 9), 7, 2)
    layers = family_of(transformer).layers(transformer)
    stock, keys = [layer.processor for layer in layers], list(transformer.state_dict())
    before = call(transformer, inputs)
    with sparse(transformer, SPARSE, ((1.0, "dense"),)):
        assert torch.equal(call(transformer, inputs), before)
    with sparse(transformer, SPARSE):
        assert not torch.equal(call(transformer, inputs), before)
        assert list(transformer.state_dict()) == keys
    assert [layer.processor for layer in layers] == stock
    assert torch.equal(call(transformer, inputs), before)


@families
def test_arguments_by_position(name):
    transformer, inputs = make(name), CASES[name].inputs((2, 8, 9), 7, 1)
    with sparse(transformer, SPARSE, strict=True):
        named = call(transformer, inputs)
        parameters = list(inspect.signature(type(transformer).forward).parameters.values())[1:]
        last = max(i for i, parameter in enumerate(parameters) if parameter.name in inputs)
        values = [inputs.get(p.name, p.default) for p in parameters[: last + 1]]
        assert torch.equal(output(transformer(*values, return_dict=False)), named)


@families
def test_an_unknown_processor_runs_dense_and_is_left_alone(name):
    transformer, inputs = make(name), CASES[name].inputs((2, 8, 9), 7, 1)
    layers = family_of(transformer).layers(transformer)
    stock = call(transformer, inputs)
    for layer in layers:
        layer.processor = type("Custom", (type(layer.processor),), {})()
    custom = [layer.processor for layer in layers]
    with sparse(transformer, SPARSE):
        assert torch.equal(call(transformer, inputs), stock)
        assert "a layer uses Custom" in ajour.summary(transformer).fallbacks[0]
    assert [layer.processor for layer in layers] == custom


@families
def test_a_processor_set_after_enable_is_told(name):
    transformer, inputs = make(name), CASES[name].inputs((2, 8, 9), 7, 1)
    layers = family_of(transformer).layers(transformer)
    stock, processors = call(transformer, inputs), [layer.processor for layer in layers]
    with sparse(transformer, SPARSE):
        for layer, processor in zip(layers, processors, strict=True):
            layer.processor = processor
        assert torch.equal(call(transformer, inputs), stock)
        fallbacks = ajour.summary(transformer).fallbacks
        assert len(fallbacks) == len({type(processor) for processor in processors})
        assert all("was set after enable()" in reason for reason in fallbacks)


def test_a_call_without_grid_runs_dense_and_is_told(monkeypatch):
    name = next(iter(CASES))
    transformer, inputs = make(name), CASES[name].inputs((2, 8, 9), 7, 1)
    stock = call(transformer, inputs)

    def grid(*_):
        raise Obstacle("no grid today")

    monkeypatch.setattr(type(family_of(transformer)), "grid", grid)
    with sparse(transformer, SPARSE):
        assert torch.equal(call(transformer, inputs), stock)
        assert ajour.summary(transformer).fallbacks == ("no grid today",)
    with sparse(transformer, FULL, ((1.0, "dense"),), strict=True):
        call(transformer, inputs)
        assert session_of(transformer).runtimes[0].fallbacks == []
    with sparse(transformer, SPARSE, strict=True), pytest.raises(RuntimeError, match="no grid"):
        call(transformer, inputs)
