"""Attention backends of diffusers run what ajour leaves to stock attention."""

import pytest
import torch
from diffusers.models import attention_dispatch as dispatch
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend

from ajour.pipelines.dense_backends import DENSE_BACKENDS, dense_backend_reason
from ajour.pipelines.session import session_of
from tests.processors.families import SPARSE, call, make, sparse
from tests.processors.models import CASES

USABLE = ("_CAN_USE_FLASH_ATTN", "_CAN_USE_FLASH_ATTN_3", "_CAN_USE_SAGE_ATTN")
FAKES = ("xformers", "flash", "_flash_3", "sage", "_native_cudnn")


@pytest.fixture
def calls(monkeypatch):
    """(backend, query tokens, key tokens) of all attention calls; backends are fakes."""
    calls = []
    registry = dispatch._AttentionBackendRegistry
    native = registry._backends[AttentionBackendName.NATIVE]

    def fake(name):
        def attention(query, key, value, **options):
            calls.append((name, query.shape[1], key.shape[1]))
            return native(query, key, value, **options)

        return attention

    for name in (*FAKES, "native"):
        monkeypatch.setitem(registry._backends, AttentionBackendName(name), fake(name))
    monkeypatch.setattr(registry, "_active_backend", registry._active_backend)
    for name in (*USABLE, "_CAN_USE_XFORMERS_ATTN"):
        monkeypatch.setattr(dispatch, name, True)
    return calls


def runs(transformer, inputs, assignment):
    with session_of(transformer).runtimes[0].run_as(assignment):
        return call(transformer, inputs)


@pytest.mark.parametrize("when", ["before", "after", "as a block"])
@pytest.mark.parametrize("backend", FAKES)
def test_a_backend_runs_dense_steps_and_cross_attention(backend, when, calls):
    transformer, inputs = make("Wan"), CASES["Wan"].inputs((3, 7, 9), 7, 1)
    dense, cross = (backend, 189, 189), (backend, 189, 7)
    if when == "before":
        transformer.set_attention_backend(backend)
    with sparse(transformer, SPARSE, strict=True):
        if when == "after":
            transformer.set_attention_backend(backend)
        for assignment, expected in (("dense", [dense, cross]), ("sparse", [cross])):
            calls.clear()
            if when == "as a block":
                with attention_backend(backend):
                    runs(transformer, inputs, assignment)
            else:
                runs(transformer, inputs, assignment)
            assert calls == expected * 2
    calls.clear()
    if when != "as a block":
        call(transformer, inputs)
        assert calls == [dense, cross] * 2


@pytest.mark.parametrize("name", ["HunyuanVideo", "Flux", "QwenImage", "LTX2", "ZImage"])
def test_every_dense_call_is_that_of_stock(name, calls):
    grid = (1, 12, 13) if name in ("Flux", "QwenImage", "ZImage") else (3, 7, 9)
    transformer, inputs = make(name), CASES[name].inputs(grid, 7, 1)
    transformer.set_attention_backend("xformers")
    call(transformer, inputs)
    stock = calls.copy()
    with sparse(transformer, SPARSE, strict=True):
        calls.clear()
        runs(transformer, inputs, "dense")
        assert calls == stock
        calls.clear()
        runs(transformer, inputs, "sparse")
        assert len(calls) == len(stock) - len(session_of(transformer).runtimes[0].layers)
        assert {backend for backend, *_ in calls} <= {"xformers"}


def test_reasons():
    assert dense_backend_reason("native") is None
    assert "xformers" in dense_backend_reason("xformers")
    assert "does not have it" in dense_backend_reason("another")
    if not torch.cuda.is_available():
        assert "GPU" in dense_backend_reason("_native_cudnn")
    for name in DENSE_BACKENDS:
        assert "does not have it" not in (dense_backend_reason(name) or "")
