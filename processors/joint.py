"""Attention over one or two streams of tokens; norms and rotary embedding are left to the operator.

Joint attention projects and normalises text and images (or video) with weights of their own, puts
them one after the other and rotates queries and keys. On a GPU the operator normalises and rotates
in the pass that packs its inputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ajour.processors.projections import project
from ajour.prologue import Norm, Prologue, Rope

if TYPE_CHECKING:
    from collections.abc import Sequence

RMS_NORMS = ("torch.nn.modules.normalization.RMSNorm", "diffusers.models.normalization.RMSNorm")

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, Prologue]
"""Arguments of `SparseProcessor.attend`: query, key and value of all streams, and the prologue."""


class Stream(NamedTuple):
    """Tokens that share projections and norms.

    Args:
        query: (batch, tokens, heads, head_dim), or (batch, tokens, heads * head_dim); not yet
            normalised.
        key: same shape.
        value: same shape.
        norm_q: the module that normalises queries; None if nothing does.
        norm_k: the module that normalises keys; None if nothing does.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    norm_q: Any
    norm_k: Any


def stream_of(attn: Any, x: torch.Tensor, *, added: bool = False, fused: bool = False) -> Stream:
    """The stream that an attention module projects from (batch, tokens, channels).

    Args:
        attn: a diffusers attention module.
        x: (batch, tokens, channels).
        added: use the projections and norms that joint attention adds for text.
        fused: use the one projection that `fuse_qkv_projections` made of three.
    """
    norms = (attn.norm_added_q, attn.norm_added_k) if added else (attn.norm_q, attn.norm_k)
    return Stream(*project(attn, x, added=added, fused=fused), *norms)


def joint_inputs(
    attn: Any,
    hidden_states: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    rope: Rope | None,
    *,
    text_first: bool,
    fused: bool = False,
) -> Inputs:
    """What joint attention of text and images, or video, goes over.

    Args:
        attn: a diffusers attention module with added projections for text.
        hidden_states: (batch, image tokens, channels).
        encoder_hidden_states: (batch, text tokens, channels).
        rope: see `inputs_of`.
        text_first: whether text tokens come before image tokens.
        fused: see `stream_of`.
    """
    image = stream_of(attn, hidden_states, fused=fused)
    text = stream_of(attn, encoder_hidden_states, added=True, fused=fused)
    return inputs_of((text, image) if text_first else (image, text), rope)


def inputs_of(streams: Sequence[Stream], rope: Rope | None) -> Inputs:
    """The tokens of one or two streams, one stream after the other.

    Args:
        streams: the streams in the model's token order.
        rope: the rotation of queries and keys; `start` counts the tokens of all streams.
    """
    query, q_norm = join([x.query for x in streams], [x.norm_q for x in streams])
    key, k_norm = join([x.key for x in streams], [x.norm_k for x in streams])
    value, _ = join([x.value for x in streams], [None for _ in streams])
    return query, key, value, Prologue(q_norm, k_norm, rope)


def join(parts: Sequence[torch.Tensor], modules: Sequence[Any]) -> tuple[torch.Tensor, Norm | None]:
    """Queries or keys of all streams as one tensor, and the norm that they have not been through.

    Norms that the operator cannot compute are computed here, by their modules.

    Args:
        parts: the streams' queries or keys.
        modules: their norms, None for a stream without a norm.
    """
    norm = norm_of(modules, parts[0].shape[1], parts[0].device)
    if isinstance(norm, str):
        parts = [x if m is None else m(x) for x, m in zip(parts, modules, strict=True)]
        norm = None
    return (parts[0] if len(parts) == 1 else torch.cat(tuple(parts), dim=1)), norm


def norm_of(modules: Sequence[Any], split: int, device: torch.device) -> Norm | str | None:
    """The norm that modules compute on one or two streams, for the operator.

    Args:
        modules: the streams' norms, None for a stream without a norm.
        split: the first token of the second stream.
        device: where the tokens are.

    Returns:
        The norm, None if no stream has one, or why the operator cannot compute it.
    """
    if all(module is None for module in modules):
        return None
    for module in modules:
        reason = obstacle(module, device)
        if reason is not None:
            return reason
    first, *others = modules
    if any(module.eps != first.eps for module in others):
        return "the two streams' norms have a different eps"
    return (
        Norm(first.weight, first.eps, others[0].weight, split)
        if others
        else Norm(first.weight, first.eps)
    )


def obstacle(module: Any, device: torch.device) -> str | None:
    """Why the operator cannot compute a norm in its module's place, or None."""
    if module is None:
        return "one of the streams has no norm"
    kind = type(module)
    if f"{kind.__module__}.{kind.__qualname__}" not in RMS_NORMS:
        return f"{kind.__name__} is not a known RMS norm"
    # A pipeline's device_map puts a hook of accelerate's on every module, which offloads nothing.
    hook = module.__dict__.get("_hf_hook")
    if "forward" in module.__dict__ and getattr(hook, "offload", True):
        return "a hook replaces the norm's forward pass, as hooks for offloading do"
    if module.weight is None or getattr(module, "bias", None) is not None:
        return "the norm has no weight, or a bias too"
    if module.eps is None:
        return "the norm's eps depends on the dtype"
    if module.weight.device != device:
        return f"the norm's weight is on {module.weight.device}"
    return None


def rope_of(
    tables: tuple[torch.Tensor, torch.Tensor] | None, device: torch.device, start: int = 0
) -> Rope | None:
    """The rotation by tables of cosines and sines.

    Args:
        tables: (rotated tokens, head_dim) each, every value twice; None where the model has no
            rotary embedding.
        device: where the tokens are.
        start: the first token that is rotated.
    """
    if tables is None:
        return None
    cosines, sines = (table.to(device) for table in tables)
    return Rope(cosines, sines, start)
