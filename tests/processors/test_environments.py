"""What a process sets for all of torch changes no result; classes that extend supported ones."""

import contextlib

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import ajour
from ajour import Auto
from tests.processors.families import call, make
from tests.processors.models import CASES

NAMES = ("Wan", "HunyuanVideo", "Flux", "QwenImage", "CogVideoX", "Mochi")

# Mochi turns autocast on in float32, of which torch warns on CPU.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")


@contextlib.contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def threads():
    torch.set_num_threads(2)
    try:
        yield
    finally:
        torch.set_num_threads(1)


ENVIRONMENTS = {
    "another default device": lambda: torch.device("meta"),
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "inference mode": torch.inference_mode,
    "deterministic": deterministic,
    "threads": threads,
}


def chosen(transformer, inputs, environment=contextlib.nullcontext, **options):
    """The automatic plan of a run of three steps, and the output of its last step."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    sample, options = torch.zeros(1, 4), {"plan": Auto(0.5), "backend": "cpu"} | options
    with ajour.sparse(transformer, scheduler=scheduler, strict=True, **options):
        scheduler.set_timesteps(3)
        for step in range(3):
            with environment():
                out = call(transformer, inputs)
            scheduler.step(sample, scheduler.timesteps[step], sample)
        return ajour.current_plan(transformer), out


@pytest.mark.parametrize("name", NAMES)
def test_an_environment_changes_nothing(name):
    grid = (1, 12, 13) if name in ("Flux", "QwenImage") else (3, 7, 9)
    transformer, inputs = make(name), CASES[name].inputs(grid, 7, 1)
    plan, out = chosen(transformer, inputs)
    for environment in ENVIRONMENTS.values():
        other, same = chosen(transformer, inputs, environment)
        assert other == plan
        torch.testing.assert_close(same, out, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_class_that_extends_a_supported_one(name):
    grid = (1, 12, 13) if name in ("Flux", "QwenImage") else (3, 7, 9)
    transformer, inputs = make(name), CASES[name].inputs(grid, 7, 1)
    plan, out = chosen(transformer, inputs)
    kind = type(transformer)
    transformer.__class__ = type("Mine", (kind,), {})
    own, same = chosen(transformer, inputs)
    assert own == plan
    assert own.model["transformer"] == kind.__name__
    assert torch.equal(same, out)
    chosen(transformer, inputs, plan=plan)  # a plan for the class that it extends


@pytest.mark.parametrize("density", [np.float32(0.5), np.float64(0.5), np.array(0.5)[()], 1])
def test_densities_of_numpy(density):
    auto = Auto(density)
    assert type(auto.density) is float
    transformer, inputs = make("Wan"), CASES["Wan"].inputs((3, 7, 9), 7, 1)
    plan, _ = chosen(transformer, inputs, plan="auto", density=density)
    assert ajour.Plan.from_dict(plan.to_dict()) == plan


@pytest.mark.parametrize("density", [True, "0.5", 0, np.float32(1.5), 0.5j, torch.tensor(0.5)])
def test_densities_that_are_none(density):
    with pytest.raises(ValueError, match="density must be a number over 0 and up to 1"):
        Auto(density)
