"""Steps that several families share: projections with norms per head, and rotary embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


def project(
    attn: Any, x: torch.Tensor, *, added: bool = False, fused: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values of one stream, normalised per head.

    Args:
        attn: a diffusers attention module.
        x: (batch, tokens, channels).
        added: use the projections and norms that joint attention adds for text.
        fused: use the one projection that `fuse_qkv_projections` made of three; not with `added`.

    Returns:
        Three tensors (batch, tokens, heads, head_dim).
    """
    if fused:
        parts: Sequence[torch.Tensor] = attn.to_qkv(x).chunk(3, dim=-1)
    elif added:
        parts = attn.add_q_proj(x), attn.add_k_proj(x), attn.add_v_proj(x)
    else:
        parts = attn.to_q(x), attn.to_k(x), attn.to_v(x)
    query, key, value = (part.unflatten(-1, (attn.heads, -1)) for part in parts)
    norm_q, norm_k = (attn.norm_added_q, attn.norm_added_k) if added else (attn.norm_q, attn.norm_k)
    if norm_q is not None:
        query = norm_q(query)
    if norm_k is not None:
        key = norm_k(key)
    return query, key, value


def rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Rotary embedding that rotates neighbouring pairs of channels, in the tables' precision.

    Args:
        x: (..., channels).
        cosines: one per pair, broadcastable to (..., channels / 2).
        sines: same shape.
    """
    even, odd = x[..., 0::2], x[..., 1::2]
    pairs = torch.stack((even * cosines - odd * sines, even * sines + odd * cosines), dim=-1)
    return pairs.flatten(-2).type_as(x)
