"""Every family: a sparse plan is stock with the reference operator in the place of attention."""

import pytest
import torch

import ajour
from ajour import lower
from ajour.processors import family_of
from tests.processors.families import SPARSE, call, make, sparse
from tests.processors.models import CASES

# Mochi turns autocast on in float32, of which torch warns on CPU.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")

GRID, TEXT = (3, 7, 9), 7


@pytest.mark.parametrize("name", list(CASES))
def test_a_sparse_plan_equals_the_reference_by_hand(name, monkeypatch):
    transformer, inputs = make(name), CASES[name].inputs(GRID, TEXT, 2)
    with sparse(transformer, SPARSE, strict=True):
        ours = call(transformer, inputs)
    grid = CASES[name].grid(GRID, TEXT)
    table = lower(SPARSE, grid)
    stock, calls = torch.nn.functional.scaled_dot_product_attention, []

    def by_hand(query, key, value, *args, **kwargs):
        alone = grid.seq_len - query.shape[2]  # text that has keys alone, before or after
        if key.shape[2] != grid.seq_len or alone not in (0, TEXT):
            return stock(query, key, value, *args, **kwargs)
        calls.append(query.shape)
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        first = alone if grid.before >= alone else 0
        q = torch.nn.functional.pad(q, (0, 0, 0, 0, first, alone - first))
        k, v = (x.repeat_interleave(q.shape[2] // x.shape[2], dim=2) for x in (k, v))
        out = ajour.attention(q, k, v, table, backend="reference")
        return out[:, first : first + query.shape[2]].transpose(1, 2)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", by_hand)
    torch.testing.assert_close(call(transformer, inputs), ours, rtol=1e-4, atol=1e-5)
    samples = 2 if name == "Mochi" else 1  # its stock processor goes sample by sample
    assert len(calls) == samples * len(family_of(transformer).layers(transformer))
