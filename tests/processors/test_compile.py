"""Every family under torch.compile: other plans, phases and patterns add no graph."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch._dynamo.testing import CompileCounter

import ajour
from ajour import Auto, Captured, MultiDiagonal, Pyramid, Skip, Stripe
from ajour.pipelines.session import session_of
from ajour.processors import family_of, layer
from tests.processors.families import FULL, SPARSE, call, make, sparse
from tests.processors.models import CASES, FIRST_OF_KIN
from tests.processors.test_text_padding import padded

# Mochi turns autocast on in float32, of which torch warns on CPU.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")

GRID = (3, 7, 9)
FIRST = [Stripe(2), MultiDiagonal(0, 1)]
PLANS = [FIRST, SPARSE, FULL, [Pyramid(0, 0, 0), Skip()]]
"""They differ in how long their lists are, in orders and in pooling levels."""


def whole(transformer, backend):
    # HunyuanVideo-1.5's stock code loops over its masks' values, which breaks its graph.
    breaks = "HunyuanVideo15" in type(transformer).__name__
    transformer.compile(backend=backend, fullgraph=not breaks)


def blocks(transformer, backend):
    """What `compile_repeated_blocks` does, also for families that name no blocks for it."""
    kinds = {kind for kind in map(type, transformer.modules()) if kind.__name__.endswith("Block")}
    for module in transformer.modules():
        if type(module) in kinds:
            module.compile(backend=backend, fullgraph=True)


WHOLE = ("Wan", "HunyuanVideo", "QwenImage", "MiniMaxH3")
"""Families that are also traced whole: that takes long, and blocks hold what is ours."""


QUICK = ("Wan", "HunyuanVideo", "QwenImage", "Flux", "LTX", "MiniMaxH3")
"""Families whose blocks are compiled in `make test`; `make test-all` compiles all of them."""


@pytest.mark.parametrize(
    ("name", "compile_"),
    [
        pytest.param(name, whole, marks=[] if name in ("Wan", "QwenImage") else pytest.mark.slow)
        for name in WHOLE
    ]
    + [
        pytest.param(name, blocks, marks=[] if name in QUICK else pytest.mark.slow)
        for name in FIRST_OF_KIN
    ],
)
def test_plans_and_phases_add_no_graph(name, compile_):
    transformer, inputs = make(name), CASES[name].inputs(GRID, 7, 1)
    for blocks_ in family_of(transformer).blocks:  # a block of each kind: all others trace alike
        setattr(transformer, blocks_, getattr(transformer, blocks_)[-1:])
    expected = []
    for patterns in PLANS:
        with sparse(transformer, patterns, strict=True):
            expected.append(call(transformer, inputs))
    torch._dynamo.reset()
    counter = CompileCounter()
    compile_(transformer, counter)
    graphs = []
    for patterns, eager in zip(PLANS, expected, strict=True):
        with sparse(transformer, patterns, strict=True):
            runtime = session_of(transformer).runtimes[0]
            for assignment in ("dense", "sparse"):
                with runtime.run_as(assignment):
                    out = call(transformer, inputs)
                graphs.append(counter.frame_count)
            torch.testing.assert_close(out, eager, rtol=1e-4, atol=1e-5)
    assert 0 < graphs[0] < graphs[1]
    assert set(graphs[1:]) == {graphs[1]}


@pytest.mark.parametrize("name", ["HunyuanVideo", "QwenImage"])
def test_texts_and_listeners_add_no_graph(name):
    torch._dynamo.reset()
    transformer, counter, heard = make(name, num_layers=1), CompileCounter(), []
    blocks(transformer, counter)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, padded(name, (3, 3)))
        graphs = counter.frame_count
        with session_of(transformer).runtimes[0].listen(lambda layer, *_: heard.append(layer)):
            for lengths in ((5, 5), (3, 8), (11, 11)):
                call(transformer, padded(name, lengths))
        assert heard
        assert counter.frame_count == graphs > 0


@pytest.mark.parametrize(
    "name", ["Wan", "HunyuanVideo", pytest.param("QwenImage", marks=pytest.mark.slow)]
)
def test_prompts_sizes_batches_and_plans_add_no_graph(name):
    """Also while captured patterns and automatic plans are measured.

    Blocks alone: outside of them Qwen-Image's stock code makes a graph for every size.
    """
    torch._dynamo.reset()
    layers = {"num_layers": 1}
    if name == "HunyuanVideo":
        layers["num_single_layers"] = 0
    transformer, counter = make(name, **layers), CompileCounter()
    sizes = [(1, 9 + n, 9) if name == "QwenImage" else (2, 4 + n, 9) for n in range(8)]
    calls = [CASES[name].inputs(sizes[n % 8], 5 + 2 * n, 2 + n // 8) for n in range(12)]
    for block in getattr(transformer, family_of(transformer).blocks[0]):
        block.compile(backend=counter, fullgraph=True, dynamic=True)
    for inputs in calls:
        call(transformer, inputs)
    stock = counter.frame_count
    for patterns in (SPARSE, FULL, [Captured([0.4] * 3 + [1.0]), Stripe(3)]):
        with sparse(transformer, patterns, strict=True):
            runtime = session_of(transformer).runtimes[0]
            for inputs in calls:
                for assignment in ("dense", "sparse"):
                    with runtime.run_as(assignment, measure=assignment == "dense"):
                        call(transformer, inputs)
    scheduler = FlowMatchEulerDiscreteScheduler()
    with ajour.sparse(transformer, Auto(0.6), scheduler=scheduler, strict=True):
        scheduler.set_timesteps(3)
        for step in range(3):
            call(transformer, calls[0])
            scheduler.step(torch.zeros(1, 4), scheduler.timesteps[step], torch.zeros(1, 4))
        assert session_of(transformer).steps[-1].startswith("auto")
    assert 0 < counter.frame_count <= stock + 2


def test_cuda_graphs_leave_attention_out_or_are_refused(monkeypatch):
    for operator in (torch.ops.ajour.attend_layer, torch.ops.ajour.attend):
        assert torch.Tag.cudagraph_unsafe in operator.default.tags
    transformer, inputs = make("Wan", num_layers=1), CASES["Wan"].inputs(GRID, 7, 1)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
        monkeypatch.setattr(layer, "is_captured", lambda _: True)
        with pytest.raises(RuntimeError, match="cannot be captured in a CUDA graph"):
            call(transformer, inputs)
