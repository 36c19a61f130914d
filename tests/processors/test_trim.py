"""`trim`: text padding left out of dense phases too, which changes nothing but the rounding."""

import pytest
import torch

from ajour.pipelines.session import session_of
from ajour.processors import family_of
from tests.processors.families import SPARSE, call, make, sparse
from tests.processors.models import CASES
from tests.processors.test_text_padding import READERS, padded

# Mochi turns autocast on in float32, of which torch warns on CPU.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")

DENSE = ((1.0, "dense"),)


def call_and_hear(transformer, inputs):
    """The output of a call, and the layers that went through the operator."""
    heard = set()
    with session_of(transformer).runtimes[0].listen(lambda layer, *_: heard.add(layer)):
        return call(transformer, inputs), heard


@pytest.mark.parametrize("name", list(READERS))
@pytest.mark.parametrize("lengths", [(5,), (3, 8)], ids=str)
def test_dense_phases_without_padding_equal_stock(name, lengths):
    transformer, inputs = make(name), padded(name, lengths)
    stock = call(transformer, inputs)
    with sparse(transformer, SPARSE, DENSE, trim=True):
        ours, heard = call_and_hear(transformer, inputs)
        assert len(heard) == len(family_of(transformer).layers(transformer))
        assert session_of(transformer).runtimes[0].assignment == "dense"
    torch.testing.assert_close(ours, stock, rtol=1e-4, atol=1e-5)
    with sparse(transformer, SPARSE, DENSE):
        assert torch.equal(call(transformer, inputs), stock)


@pytest.mark.parametrize("name", ["HunyuanVideo", "Wan"])
def test_without_padding_a_dense_phase_stays_stock(name):
    transformer = make(name)
    inputs = padded(name, (11,)) if name in READERS else CASES[name].inputs((2, 8, 9), 11, 1)
    stock = call(transformer, inputs)
    with sparse(transformer, SPARSE, DENSE, trim=True):
        ours, heard = call_and_hear(transformer, inputs)
        assert torch.equal(ours, stock)
        assert not heard
