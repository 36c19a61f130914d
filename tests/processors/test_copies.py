"""A copy of an enabled transformer, or one that was stored and loaded again, runs stock."""

import copy

import pytest
import torch

import ajour
from ajour.pipelines.session import session_of
from ajour.processors import family_of
from tests.copies import by_pickle, by_torch
from tests.processors.families import SPARSE, call, make, sparse
from tests.processors.models import CASES, FIRST_OF_KIN

# Mochi turns autocast on in float32, of which torch warns on CPU.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")

GRID = (3, 7, 9)
families = pytest.mark.parametrize("name", FIRST_OF_KIN)


def processors_of(transformer):
    return [type(layer.processor) for layer in family_of(transformer).layers(transformer)]


def assert_is_stock(other, inputs, stock, processors):
    """It runs as stock does, at another size too, and can be enabled by itself."""
    assert processors_of(other) == processors
    assert torch.equal(call(other, inputs), stock)
    with pytest.raises(RuntimeError, match="not enabled"):
        session_of(other)
    with sparse(other, SPARSE, strict=True):
        assert not torch.equal(call(other, inputs), stock)


@families
@pytest.mark.parametrize("duplicate", [copy.deepcopy, by_pickle, by_torch])
def test_a_copy_is_stock(name, duplicate):
    transformer, inputs = make(name), CASES[name].inputs(GRID, 7, 1)
    stock, processors = call(transformer, inputs), processors_of(transformer)
    with sparse(transformer, SPARSE, strict=True):
        sparse_out = call(transformer, inputs)
        other = duplicate(transformer)
        assert torch.equal(call(other, inputs), stock)
        assert torch.equal(call(transformer, inputs), sparse_out)
    assert_is_stock(other, inputs, stock, processors)


@families
def test_a_copy_made_within_a_pass_is_stock(name):
    transformer, inputs = make(name), CASES[name].inputs(GRID, 7, 1)
    stock, processors = call(transformer, inputs), processors_of(transformer)
    copies = []

    def listen(layer, *_):
        if layer == 0:
            copies.append(copy.deepcopy(transformer))

    with sparse(transformer, SPARSE, strict=True):
        with session_of(transformer).runtimes[0].listen(listen):
            call(transformer, inputs)
        larger = CASES[name].inputs((4, 7, 9), 9, 1)
        assert torch.equal(call(copies[0], inputs), stock)
        other = call(copies[0], larger)
    assert torch.equal(other, call(transformer, larger))
    assert_is_stock(copies[0], inputs, stock, processors)


@families
def test_a_forward_that_no_hook_saw_is_stock(name):
    transformer, inputs = make(name), CASES[name].inputs(GRID, 7, 1)
    stock = transformer(**inputs, return_dict=False)
    with sparse(transformer, SPARSE):
        call(transformer, inputs)
        direct = transformer.forward(**inputs, return_dict=False)
        assert "forward() was called directly" in ajour.summary(transformer).fallbacks[0]
    one, other = (out if isinstance(out, torch.Tensor) else out[0] for out in (stock, direct))
    assert all(map(torch.equal, one, other))
