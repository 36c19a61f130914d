"""Calls of tiny transformers, plans for them, and the comparison with stock."""

import copy

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import ajour
from ajour import Full, MultiDiagonal, Phase, Plan, Schedule, Stripe
from ajour.processors import family_of
from tests.processors.models import CASES, HEAD_DIM, HEADS


def make(name, seed=0, **config):
    """A transformer with sharper attention than at random initialisation."""
    torch.manual_seed(seed)
    transformer = CASES[name].build(**config).eval().requires_grad_(False)
    for layer in family_of(transformer).layers(transformer):
        for norm in (layer.norm_q, layer.norm_k):
            norm.weight.mul_(2)
    return transformer


def call(transformer, inputs):
    """The output of a call, in float64; floating inputs are cast to the transformer's dtype."""
    cast = ("hidden_states", "encoder_hidden_states", "pooled_projections")
    inputs = inputs | {key: inputs[key].to(transformer.dtype) for key in cast if key in inputs}
    return transformer(**inputs, return_dict=False)[0].double()


def sparse(pipe, patterns, schedule=((1.0, "sparse"),), **options):
    """`ajour.sparse` with a plan that gives every layer the same patterns, one per head.

    Takes a pipeline, or a transformer, which gets a scheduler.
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
    return ajour.sparse(pipe, plan, **options)


FULL = [Full(), Full()]
SPARSE = [MultiDiagonal(1, 1), Stripe(3)]


def assert_equals_stock(transformer, inputs, dtype=torch.float32):
    """A full plan errs at most about as much as stock does, against float64."""
    exact = call(copy.deepcopy(transformer).double(), inputs)
    transformer = transformer.to(dtype)
    stock = call(transformer, inputs)
    with sparse(transformer, FULL, strict=True):
        ours = call(transformer, inputs)
    ulp = torch.finfo(dtype).eps * exact.abs().max()
    error, allowed = (ours - exact).abs(), (stock - exact).abs()
    assert error.max() <= 2 * allowed.max() + 2 * ulp
    assert error.mean() <= allowed.mean() + 2 * ulp
