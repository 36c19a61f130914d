"""Weights that accelerate keeps away until their module runs: the result stays the same."""

import pytest
import torch
from accelerate import cpu_offload
from diffusers import FlowMatchEulerDiscreteScheduler

import ajour
from ajour import Auto
from ajour.pipelines.session import session_of
from tests.processors.families import SPARSE, call, make, sparse
from tests.processors.models import CASES

NAMES = ("Wan", "HunyuanVideo", "Flux2", "Kandinsky5", "ZImage", "MiniMaxH3")


@pytest.mark.parametrize("name", NAMES)
def test_a_plan(name):
    transformer, inputs = make(name), CASES[name].inputs((3, 7, 9), 7, 1)
    with sparse(transformer, SPARSE, strict=True):
        expected = call(transformer, inputs)
    cpu_offload(transformer, torch.device("cpu"))
    with sparse(transformer, SPARSE, strict=True):
        out = call(transformer, inputs)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_an_automatic_plan(name):
    transformer, inputs = make(name), CASES[name].inputs((3, 7, 9), 7, 1)
    cpu_offload(transformer, torch.device("cpu"))
    scheduler = FlowMatchEulerDiscreteScheduler()
    with ajour.sparse(transformer, Auto(0.6), scheduler=scheduler, backend="cpu", strict=True):
        scheduler.set_timesteps(2)
        for step in range(2):
            assert call(transformer, inputs).isfinite().all()
            scheduler.step(torch.zeros(1, 4), scheduler.timesteps[step], torch.zeros(1, 4))
        assert session_of(transformer).steps[-1].startswith("auto")
