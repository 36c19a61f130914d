"""Calls of tiny transformers, plans for them, and the comparison with stock."""

import copy
from contextlib import contextmanager

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.models.embeddings import TimestepEmbedding

import ajour
from ajour import Full, MultiDiagonal, Phase, Plan, Schedule, Stripe
from ajour.processors import family_of
from tests.processors.models import CASES, HEAD_DIM, HEADS

CAST = (
    "x",
    "cap_feats",
    "hidden_states",
    "encoder_hidden_states",
    "encoder_hidden_states_2",
    "encoder_hidden_states_image",
    "audio_hidden_states",
    "audio_encoder_hidden_states",
    "control_hidden_states",
    "pose_hidden_states",
    "face_pixel_values",
    "text_encoder_layers",
    "text_bth",
    "vision_tokens",
    "sound_tokens",
    "r_timestep",
    "latents_clean",
    "latents_history_2x",
    "latents_history_4x",
    "image_embeds",
    "pooled_projections",
    "perturbation_mask",
    "timestep",
)
"""Inputs that have the transformer's dtype."""


NORMS = ("norm_q", "norm_k", "query_norm", "key_norm", "img_attn_q_norm", "img_attn_k_norm")


def make(name, seed=0, **config):
    """A transformer with sharper attention than at random initialisation."""
    torch.manual_seed(seed)
    transformer = CASES[name].build(**config).eval().requires_grad_(False)
    for layer in family_of(transformer).layers(transformer):
        for name in NORMS:
            if getattr(layer, name, None) is not None:
                getattr(layer, name).weight.mul_(2)
    return transformer


def call(transformer, inputs):
    """The output of a call, in float64; floating inputs are cast to the transformer's dtype."""
    known = {key: to(inputs[key], transformer.dtype) for key in CAST if key in inputs}
    return output(transformer(**inputs | known, return_dict=False))


def to(value, dtype):
    """A tensor, or a list of tensors, in a dtype, if it is floating."""
    if isinstance(value, list):
        return [to(part, dtype) for part in value]
    return value.to(dtype) if value.is_floating_point() else value


def output(out):
    """The (batch, ...) tensor that a transformer returned, in float64."""
    first = out if isinstance(out, torch.Tensor) else out[0]
    if not isinstance(first, list):
        return first.double()
    same = len({part.shape for part in first}) == 1
    return (torch.stack(first) if same else torch.cat([part.flatten() for part in first])).double()


def cast(transformer, dtype):
    """In another dtype, but for what Kandinsky's forward pass keeps in float32.

    Sinusoids of the timestep are always float32, which not every model casts to float64.
    """
    transformer = transformer.to(dtype)
    kept = ["time_embeddings"] + ["modulation"] * (dtype.itemsize < 4)
    for name, module in transformer.named_modules():
        if "Kandinsky" in type(transformer).__name__ and name.endswith(tuple(kept)):
            module.float()
        if dtype == torch.float64 and isinstance(module, TimestepEmbedding):
            module.register_forward_pre_hook(like_weights)
    return transformer


def like_weights(module, args):
    """The arguments of a timestep's embedding, in its own dtype."""
    return args[0].to(module.linear_1.weight.dtype), *args[1:]


@contextmanager
def sparse(pipe, patterns, schedule=((1.0, "sparse"),), **options):
    """`ajour.sparse` with a plan that gives every layer the same patterns, one per head.

    Takes a pipeline, or a transformer, which gets a scheduler at the start of a run of one step.
    """
    transformer = getattr(pipe, "transformer", pipe)
    layers = len(family_of(transformer).layers(transformer))
    names = {f"p{index}": pattern for index, pattern in enumerate(patterns)}
    plan = Plan(
        {
            "transformer": type(transformer).__name__,
            "layers": layers,
            "heads": HEADS,
            "head_dim": HEAD_DIM,
        },
        names,
        {"sparse": (tuple(names),) * layers},
        Schedule(tuple(Phase(*phase) for phase in schedule)),
    )
    if pipe is transformer:
        options = {"scheduler": FlowMatchEulerDiscreteScheduler()} | options
    with ajour.sparse(pipe, plan, **options):
        if pipe is transformer:
            options["scheduler"].set_timesteps(1)
        yield pipe


FULL = [Full(), Full()]
SPARSE = [MultiDiagonal(1, 1), Stripe(3)]


def assert_equals_stock(transformer, inputs, dtype=torch.float32):
    """A full plan errs at most about as much as stock does, against float64."""
    exact = call(cast(copy.deepcopy(transformer), torch.float64), inputs)
    transformer = cast(transformer, dtype)
    stock = call(transformer, inputs)
    with sparse(transformer, FULL, strict=True):
        ours = call(transformer, inputs)
    ulp = torch.finfo(dtype).eps * exact.abs().max()
    error, allowed = (ours - exact).abs(), (stock - exact).abs()
    assert error.max() <= 2 * allowed.max() + 2 * ulp
    assert error.mean() <= allowed.mean() + 2 * ulp
