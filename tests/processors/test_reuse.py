"""Reused steps on every family: nothing of the transformer runs, the output has its usual form."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch.utils._pytree import tree_leaves, tree_structure

from ajour.pipelines.session import session_of
from tests.processors.families import CAST, SPARSE, make, sparse, to
from tests.processors.models import CASES

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")

SCHEDULE = ((1.0, "dense"), (0.6, "reuse", 0, (1.0,)), (0.1, "sparse"))


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("return_dict", [True, False])
def test_every_family_reuses_steps(name, return_dict):
    transformer, scheduler = make(name), FlowMatchEulerDiscreteScheduler(shift=1.0)
    inputs = CASES[name].inputs((3, 7, 9), 7, 1)
    inputs |= {key: to(inputs[key], transformer.dtype) for key in CAST if key in inputs}
    latents = next(key for key in ("hidden_states", "x", "vision_tokens") if key in inputs)
    outputs, ran, sample = [], [], torch.zeros(1, 4)
    for module in list(transformer.modules())[1:]:
        module.register_forward_pre_hook(lambda *_: ran.append(None))
    with sparse(transformer, SPARSE, SCHEDULE, scheduler=scheduler, strict=True):
        scheduler.set_timesteps(4)
        for step in range(4):
            inputs[latents] = _moved(inputs[latents])
            ran.clear()
            with torch.no_grad():
                outputs.append(transformer(**inputs, return_dict=return_dict))
            assert bool(ran) == (step != 2)
            scheduler.step(sample, scheduler.timesteps[step], sample)
        levels, steps = session_of(transformer).noise_levels, session_of(transformer).steps
    assert steps == ("dense", "dense", "reuse", "sparse")
    first, last, reused = outputs[:3]
    assert type(reused) is type(last)
    assert tree_structure(reused) == tree_structure(last)
    weight = (levels[2] - levels[1]) / (levels[1] - levels[0])
    leaves = zip(*map(tree_leaves, (first, last, reused)), strict=True)
    for a, b, c in (leaf for leaf in leaves if isinstance(leaf[0], torch.Tensor)):
        assert not torch.equal(a, b)
        torch.testing.assert_close(c, b + weight * (b - a), rtol=1e-4, atol=1e-5)


def _moved(value):
    """The latents of the next step."""
    return [part * 0.9 for part in value] if isinstance(value, list) else value * 0.9
