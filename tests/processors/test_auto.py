"""Automatic plans on every family."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import ajour
from ajour import Auto
from ajour.pipelines.session import session_of
from tests.processors.families import call, make
from tests.processors.models import CASES

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")

IMAGES = ("Flux", "Flux2", "QwenImage", "ZImage")
IMAGES += ("OvisImage", "LongCatImage", "Bria", "BriaFibo", "Chroma", "Krea2", "ErnieImage")
IMAGES += ("HunyuanImage", "JoyImageEdit", "NucleusMoEImage")


@pytest.mark.parametrize("name", list(CASES))
def test_every_family_chooses_for_itself(name):
    case, transformer = CASES[name], make(name)
    scheduler = FlowMatchEulerDiscreteScheduler()
    inputs = case.inputs((1, 30, 26) if name in IMAGES else (6, 10, 12), 20, 1)
    dense = call(transformer, inputs)
    with ajour.sparse(transformer, Auto(0.6), scheduler=scheduler, strict=True):
        scheduler.set_timesteps(4)
        errors = []
        for step in range(4):
            out = call(transformer, inputs)
            errors.append(float((out - dense).norm() / dense.norm()))
            sample = torch.zeros(1, 4)
            scheduler.step(sample, scheduler.timesteps[step], sample)
        steps = session_of(transformer).steps
        sparse_steps = [assignment for assignment in steps if assignment != "dense"]
        density = ajour.summary(transformer).mean_density(sparse_steps)
    assert steps[0] == "dense"
    assert set(steps[-2:]) <= {"auto", "auto-late"}
    assert errors[0] < 1e-4
    assert 1e-6 < errors[-1] < 0.5
    assert density <= 0.6
