"""Under torch.compile: the same results, and no new graphs once every phase has been seen."""

import functools

import pytest
import torch
from torch._dynamo.testing import CompileCounter

import ajour
from ajour import Auto, Captured, MultiDiagonal, Stripe
from ajour.pipelines.compiling import CompiledBlocks, repeated_blocks
from ajour.pipelines.generate import compare
from ajour.processors import family_of
from tests.pipelines.conftest import LATE, make_plan, run
from tests.processors.models import CASES

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


@pytest.fixture
def counter(monkeypatch):
    """Counts the graphs of everything that is compiled, which runs eagerly."""
    torch._dynamo.reset()
    counter = CompileCounter()
    compile_ = functools.partialmethod(torch.nn.Module.compile, backend=counter)
    monkeypatch.setattr(torch.nn.Module, "compile", compile_)
    return counter


def test_enable_compiles_and_disable_undoes_it(pipe, counter):
    dense = run(pipe)
    with ajour.sparse(pipe, LATE):
        eager = run(pipe)
    ajour.enable(pipe, LATE, compile=True)
    torch.testing.assert_close(run(pipe), eager)
    graphs = counter.frame_count
    assert graphs == 2
    with pytest.raises(ValueError, match="compiled already; enable it without compile=True"):
        CompiledBlocks([pipe.transformer])
    run(pipe, size=(9, 128, 96))
    assert counter.frame_count == graphs
    ajour.disable(pipe)
    assert torch.equal(run(pipe), dense)
    assert counter.frame_count == graphs
    assert all(block._compiled_call_impl is None for block in pipe.transformer.blocks)


def test_what_fails_compiles_nothing(pipe):
    with pytest.raises(TypeError, match="has neither sigmas nor alphas_cumprod"):
        ajour.enable(pipe, LATE, scheduler=object(), compile=True)
    assert all(block._compiled_call_impl is None for block in pipe.transformer.blocks)


@pytest.mark.parametrize("name", list(CASES))
def test_every_family_has_blocks_to_compile(name):
    transformer = CASES[name].build()
    layers = family_of(transformer).layers(transformer)
    inside = {id(part) for block in repeated_blocks(transformer) for part in block.modules()}
    assert {id(layer) for layer in layers} <= inside


def test_generate_compiles_both_runs(pipe, counter):
    options = {"num_frames": 5, "height": 64, "width": 64, "num_inference_steps": 2}
    report = compare(pipe, LATE, "a red circle", 0, compile=True, **options).report
    assert report.compiled
    assert counter.frame_count >= 2
    assert all(block._compiled_call_impl is None for block in pipe.transformer.blocks)
