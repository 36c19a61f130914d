"""The weight that a projection applies, whatever keeps it."""

from __future__ import annotations

from typing import Any

import torch


@torch.no_grad()
def weight_of(module: Any, out: torch.Tensor, others: int = 0) -> torch.Tensor:
    """The weight that a linear module applies to attention's output now.

    A plain module's weight is read. Any other is called with unit vectors: so adapters and
    quantised weights count as they run, and weights that are offloaded, or stored in another
    dtype, are read while their module holds them.

    Args:
        module: the module.
        out: (batch, tokens, heads, head_dim), of the dtype and device that it is called with.
        others: channels that the module takes after those of all heads.

    Returns:
        (channels, heads * head_dim).
    """
    channels = out.shape[2] * out.shape[3]
    if is_plain(module, out):
        weight: torch.Tensor = module.weight
        return weight.detach()[:, :channels]
    biased = getattr(module, "bias", None) is not None
    units = torch.eye(channels + biased, channels + others, dtype=out.dtype, device=out.device)
    units[channels:] = 0  # what the bias alone answers
    answers: torch.Tensor = module(units[None])[0]
    return (answers[:channels] - answers[channels:] if biased else answers).T


def is_plain(module: Any, out: torch.Tensor) -> bool:
    """Whether a module multiplies by its own `weight` and holds it outside of its forward pass."""
    hooked = "forward" in vars(module) or module._forward_pre_hooks or module._forward_hooks
    if type(module) is not torch.nn.Linear or hooked:
        return False
    weight = module.weight
    whole = type(weight) in (torch.Tensor, torch.nn.Parameter)
    return whole and (weight.dtype, weight.device) == (out.dtype, out.device)
