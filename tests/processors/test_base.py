"""What comes between: quantised weights, batches that change, processors made anew."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

import ajour
from ajour import Auto, Full, TokenGrid, lower
from ajour.pipelines.session import session_of
from ajour.processors import LayerState
from ajour.processors.stock import stand_in_for
from tests.processors.families import call, make
from tests.processors.models import CASES


class Quantised(torch.nn.Module):
    """A projection whose weight is kept as bytes, as quantisation libraries do."""

    def __init__(self, linear):
        super().__init__()
        self.scale = linear.weight.abs().max() / 100
        bytes_ = (linear.weight / self.scale).round().to(torch.int8)
        self.weight = torch.nn.Parameter(bytes_.flatten()[:, None], requires_grad=False)
        self.shape, self.bias = linear.weight.shape, linear.bias

    def forward(self, x):
        weight = self.weight.reshape(self.shape).to(x.dtype) * self.scale.to(x.dtype)
        return torch.nn.functional.linear(x, weight, self.bias)


def test_an_automatic_plan_for_quantised_weights():
    transformer, inputs = make("Wan"), CASES["Wan"].inputs((3, 7, 9), 7, 1)
    for block in transformer.blocks:
        block.attn1.to_out[0] = Quantised(block.attn1.to_out[0])
    scheduler = FlowMatchEulerDiscreteScheduler()
    with ajour.sparse(transformer, Auto(0.6), scheduler=scheduler, strict=True):
        scheduler.set_timesteps(2)
        for step in range(2):
            assert call(transformer, inputs).isfinite().all()
            scheduler.step(torch.zeros(1, 4), scheduler.timesteps[step], torch.zeros(1, 4))
        assert session_of(transformer).steps[-1].startswith("auto")


def test_a_processor_that_diffusers_makes_anew_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"ajour.disable\(pipe\).*IP adapter"):
        stand_in_for(FluxAttnProcessor)()


def test_a_batch_that_changed_inside_the_transformer_is_refused():
    grid = TokenGrid(2, 4, 4)
    state = LayerState((lower([Full()], grid),) * 2, tokens=grid.seq_len)
    x = torch.randn(1, grid.seq_len, 1, 16)
    with pytest.raises(RuntimeError, match="2 samples of different text lengths.*sees 1"):
        stand_in_for(FluxAttnProcessor)(FluxAttnProcessor(), state).attend(x, x, x)
