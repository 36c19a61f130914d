"""Dtypes that mix in a pass: autocast, weights kept in another dtype, quantised weights."""

import pytest
import torch

from ajour.processors import fused
from tests.processors.families import FULL, SPARSE, call, make, sparse
from tests.processors.models import CASES

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
@pytest.mark.parametrize("name", list(CASES))
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
