"""What a model does to queries and keys before attention: RMS norm and rotary embedding.

Stock pipelines spend several passes over memory on these; on a GPU the operator does them, the
reordering of tokens and the padding to blocks in one. Here is their definition, in eager PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ajour.grid import TokenGrid


@dataclass(frozen=True)
class Norm:
    """RMS normalisation of each token, with a weight per channel.

    Args:
        weight: (heads * head_dim,) to normalise all heads of a token together, as Wan does, or
            (head_dim,) to normalise each head by itself, as HunyuanVideo and Flux do.
        eps: added to the mean square.
    """

    weight: torch.Tensor
    eps: float


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding of neighbouring pairs of channels.

    Args:
        cosines: (n, head_dim), each value twice.
        sines: same shape.
        start: the first of the n tokens that are rotated; those around them are not.
    """

    cosines: torch.Tensor
    sines: torch.Tensor
    start: int = 0


@dataclass(frozen=True)
class Prologue:
    """Norms of queries and keys, then the rotation of both. Any part may be absent."""

    q_norm: Norm | None = None
    k_norm: Norm | None = None
    rope: Rope | None = None

    def apply(self, q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys (batch, tokens, heads, head_dim), normalised and rotated, eagerly."""
        return (
            rotate(normalise(q, self.q_norm), self.rope),
            rotate(normalise(k, self.k_norm), self.rope),
        )

    def check(self, grid: TokenGrid, heads: int, head_dim: int, device: torch.device) -> None:
        """Raise ValueError unless all fits tensors (batch, tokens, heads, head_dim) there."""
        for name, norm in (("q_norm", self.q_norm), ("k_norm", self.k_norm)):
            allowed = {(heads * head_dim,), (head_dim,)}
            if norm is not None and tuple(norm.weight.shape) not in allowed:
                raise ValueError(
                    f"{name}: the weight must have {heads * head_dim} channels (all heads) or "
                    f"{head_dim} (each head), got shape {tuple(norm.weight.shape)}"
                )
            if norm is not None and norm.weight.device != device:
                raise ValueError(
                    f"{name}: the weight must be on {device} like q, k and v, "
                    f"got {norm.weight.device}"
                )
        if self.rope is not None:
            for part in (self.rope.cosines, self.rope.sines):
                if part.device != device:
                    raise ValueError(
                        f"rope: cosines and sines must be on {device} like q, k and v, "
                        f"got {part.device}"
                    )
            shape = tuple(self.rope.cosines.shape)
            if shape != tuple(self.rope.sines.shape) or len(shape) != 2 or shape[1] != head_dim:
                raise ValueError(
                    f"rope: cosines and sines must both be (n, {head_dim}), got {shape} and "
                    f"{tuple(self.rope.sines.shape)}"
                )
            stop = self.rope.start + shape[0]
            if not 0 <= self.rope.start <= stop <= grid.seq_len:
                raise ValueError(
                    f"rope: tokens {self.rope.start} to {stop} must lie in 0 to {grid.seq_len}"
                )


def normalise(x: torch.Tensor, norm: Norm | None) -> torch.Tensor:
    """The norm of (batch, tokens, heads, head_dim), computed in float32 or better."""
    if norm is None:
        return x
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    across = norm.weight.shape[0] != x.shape[-1] or x.shape[2] == 1
    dims = (-2, -1) if across else (-1,)
    count = norm.weight.shape[0]
    size = torch.linalg.vector_norm(wide, dim=dims, keepdim=True)
    weight = norm.weight.to(wide.dtype)
    scaled = wide * torch.rsqrt(size.square() / count + norm.eps)
    return scaled.mul_(weight.view(x.shape[2:]) if across else weight).to(x.dtype)


def rotate(x: torch.Tensor, rope: Rope | None) -> torch.Tensor:
    """The rotation of (batch, tokens, heads, head_dim), computed in float32 or better.

    Pairs of channels are complex numbers, and a rotation is a product.
    """
    if rope is None:
        return x
    wide = torch.promote_types(x.dtype, torch.float32)
    tokens = slice(rope.start, rope.start + rope.cosines.shape[0])
    turns = torch.complex(rope.cosines[:, 0::2].to(wide), rope.sines[:, 1::2].to(wide))
    pairs = torch.view_as_complex(x[:, tokens].to(wide).unflatten(-1, (-1, 2)))
    turned = torch.view_as_real(pairs * turns[None, :, None]).flatten(-2)
    if rope.cosines.shape[0] == x.shape[1]:
        return turned.to(x.dtype)
    out = x.clone()
    out[:, tokens] = turned.to(x.dtype)
    return out
