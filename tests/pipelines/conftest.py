"""A whole Wan pipeline, tiny and random, and plans for it."""

import copy

import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)

from ajour import Diagonal, Full, MultiDiagonal, Phase, Plan, Schedule, Stripe
from tools.mini import model

LAYERS, HEADS, HEAD_DIM = 2, 2, 16


def make_transformer(seed=0, **config):
    torch.manual_seed(seed)
    settings = {
        "patch_size": (1, 2, 2), "num_attention_heads": HEADS, "attention_head_dim": HEAD_DIM,
        "in_channels": 16, "out_channels": 16, "text_dim": 128, "freq_dim": 32, "ffn_dim": 64,
        "num_layers": LAYERS, "cross_attn_norm": True, "rope_max_seq_len": 64,
    }  # fmt: skip
    transformer = WanTransformer3DModel(**settings | config).eval()
    with torch.no_grad():  # sharper attention than at random initialisation
        for block in transformer.blocks:
            block.attn1.to_q.weight.mul_(3)
            block.attn1.to_k.weight.mul_(3)
    return transformer.requires_grad_(False)


@pytest.fixture(scope="session")
def _parts():
    torch.manual_seed(0)
    vae = (
        AutoencoderKLWan(  # 8 x 8 pixels and 4 frames a latent, as Wan's, at a quarter of the work
            base_dim=8,
            z_dim=16,
            dim_mult=[1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[True, True],
            in_channels=12,
            out_channels=12,
            patch_size=2,
        )
    )
    tokenizer = model.build_tokenizer(["a red circle moves left on a black background"])
    return vae.eval(), model.build_text_encoder().eval(), tokenizer


@pytest.fixture
def make_pipe(_parts):
    """Builds a WanPipeline of fresh transformers over shared other parts."""

    def build(scheduler=None, **options):
        vae, text_encoder, tokenizer = _parts
        scheduler = scheduler or UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0
        )
        pipe = WanPipeline(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            vae=vae,
            scheduler=scheduler,
            **{"transformer": make_transformer()} | options,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return build


@pytest.fixture
def pipe(make_pipe):
    return make_pipe()


def make_plan(patterns, schedule=((1.0, "dense"), (0.9, "sparse"))):
    """A plan that gives every layer the same patterns, one per head."""
    names = {f"p{index}": pattern for index, pattern in enumerate(patterns)}
    return Plan(
        {
            "transformer": "WanTransformer3DModel",
            "layers": LAYERS,
            "heads": HEADS,
            "head_dim": HEAD_DIM,
        },
        names,
        {"sparse": (tuple(names),) * LAYERS},
        Schedule(tuple(Phase(*phase) for phase in schedule)),
    )


ALWAYS = ((1.0, "sparse"),)
FULL = make_plan([Full(), Full()], ALWAYS)
SPARSE = make_plan([MultiDiagonal(1, 1), Stripe(3)], ALWAYS)
LATE = make_plan([Diagonal(1.0), Stripe(3)])


def run(pipe, steps=3, seed=0, size=(9, 128, 112), **options):
    """Latents of one call; 3x8x7 tokens, two blocks, by default."""
    frames, height, width = size
    return pipe(
        options.pop("prompt", "a red circle"),
        num_frames=frames,
        height=height,
        width=width,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
        max_sequence_length=32,
        **{"guidance_scale": 1.0} | options,
    ).frames


def latents(grid, batch=1, dtype=torch.float32):
    """Random inputs of a transformer call for a token grid."""
    frames, height, width = grid
    return {
        "hidden_states": torch.randn(batch, 16, frames, 2 * height, 2 * width).to(dtype),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": torch.randn(batch, 7, 128).to(dtype),
        "return_dict": False,
    }


def as_double(transformer):
    """A copy in float64, with its rotary tables, which stay where `.double()` cannot find them."""
    return copy.deepcopy(transformer).double()
