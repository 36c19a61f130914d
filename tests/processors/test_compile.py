"""Every family under torch.compile: no graph comes from another phase, plan or pattern."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from ajour import MultiDiagonal, Pyramid, Stripe, Window
from ajour.pipelines.session import session_of
from tests.processors.families import FULL, SPARSE, call, make, sparse
from tests.processors.models import CASES

# Mochi turns autocast on in float32, of which torch warns on CPU.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")

GRID = (3, 7, 9)


def whole(transformer, backend):
    transformer.compile(backend=backend)


def blocks(transformer, backend):
    transformer.compile_repeated_blocks(backend=backend)


@pytest.mark.parametrize("compile_", [whole, blocks])
@pytest.mark.parametrize("name", list(CASES))
def test_plans_and_phases_add_no_graph(name, compile_):
    torch._dynamo.reset()
    transformer, inputs = make(name), CASES[name].inputs(GRID, 7, 1)
    counter = CompileCounter()
    results = []
    for patterns in ([Stripe(2), MultiDiagonal(0, 1)], SPARSE, FULL):
        with sparse(transformer, patterns, strict=True):
            results.append(call(transformer, inputs))
    compile_(transformer, counter)
    graphs = []
    for patterns, expected in zip(([Stripe(2), MultiDiagonal(0, 1)], SPARSE, FULL), results):
        with sparse(transformer, patterns, strict=True):
            runtime = session_of(transformer).runtimes[0]
            for assignment in ("dense", "sparse", "dense", "sparse"):
                with runtime.run_as(assignment):
                    out = call(transformer, inputs)
                graphs.append(counter.frame_count)
            torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    print(name, graphs)
    assert graphs[1] == graphs[-1]
