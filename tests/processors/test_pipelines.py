"""Whole pipelines of every family, without text encoders and VAE: steps, guidance, host reads."""

import inspect
import sys

import pytest
import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    HunyuanVideoPipeline,
    LTXConditionPipeline,
    LTXPipeline,
    MochiPipeline,
)

import ajour
from ajour.pipelines.enable import session_of
from ajour.processors import family_of
from ajour.processors.host import read_once
from tests.processors.families import FULL, SPARSE, make, sparse
from tests.processors.models import TEXT_DIM

# Mochi turns autocast on in float32, of which torch warns on CPU; diffusers hands numpy a tensor.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast", "ignore:__array__")

EULER, TEXT, STEPS = FlowMatchEulerDiscreteScheduler, 11, 3
MOCHI = EULER(invert_sigmas=True)
VIDEO = {"height": 128, "width": 144, "num_frames": 9}


def masked(**lengths):
    """Prompts of 11 tokens, of which a mask keeps some; `negative=0` for none hidden."""
    options = {}
    for name, length in lengths.items():
        prefix = "negative_" if name == "negative" else ""
        options[f"{prefix}prompt_embeds"] = torch.randn(1, TEXT, TEXT_DIM)
        options[f"{prefix}prompt_attention_mask"] = (torch.arange(TEXT) < length)[None]
    return options


def unmasked(*names):
    return {f"{name}prompt_embeds": torch.randn(1, TEXT, TEXT_DIM) for name in names}


def pooled(*names):
    return {f"{name}pooled_prompt_embeds": torch.randn(1, 8) for name in names}


PIPELINES = {
    "HunyuanVideo": (
        HunyuanVideoPipeline, make("HunyuanVideo"), EULER(),
        lambda: VIDEO | masked(prompt=5) | pooled(""), {"3x8x9 + 5 text"}, 1,
    ),
    "HunyuanVideo with guidance": (
        HunyuanVideoPipeline, make("HunyuanVideo"), EULER(),
        lambda: VIDEO | masked(prompt=5, negative=2) | pooled("", "negative_")
        | {"true_cfg_scale": 3.0},
        {"3x8x9 + 5 text", "3x8x9 + 2 text"}, 2,
    ),
    "CogVideoX": (
        CogVideoXPipeline, make("CogVideoX"), CogVideoXDDIMScheduler(),
        lambda: VIDEO | unmasked("", "negative_"), {"3x8x9 + 11 text"}, 0,
    ),
    "CogVideoX 1.5": (
        CogVideoXPipeline, make("CogVideoX15"), CogVideoXDPMScheduler(),
        lambda: VIDEO | unmasked("", "negative_"), {"2x8x9 + 11 text"}, 0,
    ),
    "Flux": (
        FluxPipeline, make("Flux", in_channels=16), EULER(),
        lambda: {"height": 256, "width": 272} | unmasked("") | pooled(""),
        {"1x16x17 + 11 text"}, 1,
    ),
    "LTX": (
        LTXPipeline, make("LTX"), EULER(),
        lambda: {"height": 256, "width": 288, "num_frames": 17}
        | masked(prompt=5, negative=2), {"3x8x9"}, 0,
    ),
    "LTX conditions": (
        LTXConditionPipeline, make("LTX"), EULER(),
        lambda: {"height": 256, "width": 288, "num_frames": 17}
        | masked(prompt=5, negative=2), {"3x8x9"}, 1,
    ),
    "Mochi with guidance": (
        MochiPipeline, make("Mochi"), MOCHI,
        lambda: VIDEO | {"num_frames": 13} | masked(prompt=5, negative=2),
        {"3x8x9 + 2 text"}, 1,
    ),
}  # fmt: skip

READERS = ("valid_lengths", "image_raster", "video_raster", "prefix_lengths", "any_nonzero")


@pytest.mark.parametrize("name", list(PIPELINES))
def test_pipelines(name, monkeypatch):
    kind, transformer, scheduler, options, grids, expected_reads = PIPELINES[name]
    modules = dict.fromkeys(inspect.signature(kind.__init__).parameters)
    del modules["self"]
    modules |= {"transformer": transformer, "scheduler": scheduler}
    if kind is LTXConditionPipeline:
        modules["vae"] = AutoencoderKLLTXVideo(
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            latent_channels=8,
        )
    modules.pop("force_zeros_for_empty_prompt", None)
    pipe = kind(**modules)
    pipe.set_progress_bar_config(disable=True)
    arguments = options() | {"num_inference_steps": STEPS, "output_type": "latent"}
    seen, reads = set(), []
    module = sys.modules[type(family_of(transformer)).__module__]
    for reader in READERS:
        if hasattr(module, reader):
            function = getattr(module, reader).__wrapped__

            def read(tensor, function=function):
                reads.append(tensor)
                return function(tensor)

            monkeypatch.setattr(module, reader, read_once(read))

    def run():
        return pipe(**arguments, generator=torch.Generator().manual_seed(0))[0]

    stock = run()
    with sparse(pipe, FULL, strict=True):
        torch.testing.assert_close(run(), stock, rtol=1e-3, atol=1e-3)
        assert len(reads) == expected_reads
        levels = session_of(pipe).tracker.levels_done
        assert len(levels) == STEPS
        assert levels == sorted(levels, reverse=True)
        assert levels[0] > 0.8
    with sparse(pipe, SPARSE, strict=True):
        hook = transformer.register_forward_pre_hook(lambda *_: seen.add(ajour.summary(pipe).grid))
        assert not torch.allclose(run(), stock, rtol=1e-3, atol=1e-3)
        hook.remove()
    assert seen == grids
    assert torch.equal(run(), stock)


@pytest.mark.parametrize("name", ["set_timesteps", "step"])
def test_a_tracked_scheduler_keeps_its_signatures(name):
    scheduler = CogVideoXDPMScheduler()
    before = inspect.signature(getattr(scheduler, name))
    with sparse(make("CogVideoX"), FULL, scheduler=scheduler):
        assert "set_timesteps" in vars(scheduler)
        assert inspect.signature(getattr(scheduler, name)) == before
