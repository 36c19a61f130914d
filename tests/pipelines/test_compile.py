"""Under torch.compile: the same results, and no new graphs once every phase has been seen."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

import ajour
from ajour import Auto, Captured, MultiDiagonal, Stripe
from tests.pipelines.conftest import LATE, make_plan, run

SIZE = (33, 144, 128)


@pytest.mark.parametrize(
    ("plan", "graphs"),
    [
        (make_plan([MultiDiagonal(1, 1), Stripe(3)]), 2),
        (make_plan([Captured([0.4] * 3 + [1.0]), Stripe(3)]), None),
        (Auto(0.4), None),
    ],
    ids=["static", "captured", "auto"],
)
def test_a_compiled_transformer(pipe, plan, graphs):
    with ajour.sparse(pipe, plan):
        eager = run(pipe, steps=5, size=SIZE)
    torch._dynamo.reset()
    counter = CompileCounter()
    pipe.transformer.compile(backend=counter)
    with ajour.sparse(pipe, plan):
        seen = []
        for _ in range(3):
            torch.testing.assert_close(run(pipe, steps=5, size=SIZE), eager)
            seen.append(counter.frame_count)
    assert seen[1] == seen[2]
    assert graphs in (None, seen[-1])


def test_disabled_again_a_compiled_transformer_is_stock(pipe):
    torch._dynamo.reset()
    pipe.transformer.compile(backend="eager")
    dense = run(pipe)
    with ajour.sparse(pipe, LATE):
        run(pipe)
    assert torch.equal(run(pipe), dense)
