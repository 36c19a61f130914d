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
        fused: use the one projection that `fuse_qkv_projections` made of three.

    Returns:
        Three tensors (batch, tokens, heads, head_dim).
    """
    if fused:
        whole = attn.to_added_qkv if added else attn.to_qkv
        parts: Sequence[torch.Tensor] = whole(x).chunk(3, dim=-1)
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


def rotate_tokens(
    x: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor] | None, start: int = 0
) -> torch.Tensor:
    """Rotate a run of tokens and leave the others as they are.

    Args:
        x: (batch, tokens, heads, head_dim).
        tables: cosines and sines, (rotated tokens, head_dim) each, every value twice; None where
            the model has no rotary embedding.
        start: the first token that is rotated.
    """
    if tables is None:
        return x
    cosines, sines = (table[:, None, ::2].to(x.device) for table in tables)
    stop = start + cosines.shape[0]
    rotated = rotate(x[:, start:stop], cosines, sines)
    if rotated.shape == x.shape:
        return rotated
    return torch.cat((x[:, :start], rotated, x[:, stop:]), dim=1)


def rotate_halves(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Rotary embedding whose pairs are a channel of the first half and one of the second.

    Args:
        x: (..., channels).
        cosines: one per pair, broadcastable to (..., channels / 2).
        sines: same shape.
    """
    first, second = x.chunk(2, dim=-1)
    halves = (first * cosines - second * sines, first * sines + second * cosines)
    return torch.cat(halves, dim=-1).type_as(x)
