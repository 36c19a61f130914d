"""What a model does to queries and keys before attention: RMS norm and rotary embedding.

Stock pipelines spend several passes over memory on these; on a GPU the operator does them, the
reordering of tokens and the padding to blocks in one. Here is their definition, in eager PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ajour.grid import TokenGrid


@dataclass(frozen=True)
class Norm:
    """RMS normalisation of each token, with a weight per channel.

    Joint attention of text and images normalises its two streams with a weight each.

    Args:
        weight: (heads * head_dim,) to normalise all heads of a token together, as Wan does, or
            (head_dim,) to normalise each head by itself, as HunyuanVideo and Flux do.
        eps: added to the mean square.
        second: (head_dim,), the weight of tokens from `split` on, each head by itself; None if
            all tokens have the same weight.
        split: the first token that `second` is for; not used without `second`.
    """

    weight: torch.Tensor
    eps: float
    second: torch.Tensor | None = None
    split: int = 0

    def check(self, name: str, tokens: int, heads: int, head_dim: int, like: torch.device) -> None:
        """Raise ValueError unless the norm fits tensors (batch, tokens, heads, head_dim)."""
        allowed = {(heads * head_dim,), (head_dim,)}
        if tuple(self.weight.shape) not in allowed:
            raise ValueError(
                f"{name}: the weight must have {heads * head_dim} channels (all heads) or "
                f"{head_dim} (each head), got shape {tuple(self.weight.shape)}"
            )
        for weight in (self.weight, self.second):
            if weight is not None and weight.device != like:
                raise ValueError(
                    f"{name}: the weight must be on {like} like q, k and v, got {weight.device}"
                )
        if self.second is None:
            return
        shapes = tuple(self.weight.shape), tuple(self.second.shape)
        if shapes != ((head_dim,), (head_dim,)):
            raise ValueError(
                f"{name}: two weights must both have {head_dim} channels (each head), got shapes "
                f"{shapes[0]} and {shapes[1]}"
            )
        if not 0 <= self.split <= tokens:
            raise ValueError(f"{name}: split must lie in 0 to {tokens}, got {self.split}")


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding of neighbouring pairs of channels.

    Args:
        cosines: (n, head_dim), each value twice. Of a pair's two places the first is read, and of
            `sines` the second. So a table of complex numbers, seen as real numbers, is both.
        sines: same shape.
        start: the first of the n tokens that are rotated; tokens around them are not. Rows for
            tokens past the last one are not used.
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

    def parts(self) -> tuple[list[torch.Tensor | None], list[int], list[float]]:
        """Its tensors, places of tokens and numbers, as a custom operator can take them."""
        norms, rope = (self.q_norm, self.k_norm), self.rope
        weights = [None if norm is None else norm.weight for norm in norms]
        second = [None if norm is None else norm.second for norm in norms]
        tables = [None, None] if rope is None else [rope.cosines, rope.sines]
        places = [0 if norm is None else norm.split for norm in norms]
        places.append(0 if rope is None else rope.start)
        eps = [0 if norm is None else norm.eps for norm in norms]
        return weights + second + tables, places, eps

    @classmethod
    def of(
        cls, tensors: Sequence[torch.Tensor | None], places: Sequence[int], eps: Sequence[float]
    ) -> Prologue:
        """The prologue that has these `parts`."""
        q_norm, k_norm = (
            None if weight is None else Norm(weight, small, second, split)
            for weight, small, second, split in zip(
                tensors[:2], eps, tensors[2:4], places[:2], strict=True
            )
        )
        cosines, sines = tensors[4:]
        rope = None if cosines is None or sines is None else Rope(cosines, sines, places[2])
        return cls(q_norm, k_norm, rope)

    def apply(self, q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys (batch, tokens, heads, head_dim), normalised and rotated, eagerly."""
        return (
            rotate(normalise(q, self.q_norm), self.rope),
            rotate(normalise(k, self.k_norm), self.rope),
        )

    def check(self, grid: TokenGrid, heads: int, head_dim: int, device: torch.device) -> None:
        """Raise ValueError unless all fits tensors (batch, tokens, heads, head_dim) there."""
        for name, norm in (("q_norm", self.q_norm), ("k_norm", self.k_norm)):
            if norm is not None:
                norm.check(name, grid.seq_len, heads, head_dim, device)
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
            if not 0 <= self.rope.start <= grid.seq_len:
                raise ValueError(
                    f"rope: start must lie in 0 to {grid.seq_len}, got {self.rope.start}"
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
    scaled = wide * torch.rsqrt(size.square() / count + norm.eps)
    weight = norm.weight.to(wide.dtype)
    if norm.second is None:
        return scaled.mul_(weight.view(x.shape[2:]) if across else weight).to(x.dtype)
    scaled[:, : norm.split] *= weight
    scaled[:, norm.split :] *= norm.second.to(wide.dtype)
    return scaled.to(x.dtype)


def rotate(x: torch.Tensor, rope: Rope | None) -> torch.Tensor:
    """The rotation of (batch, tokens, heads, head_dim), computed in float32 or better.

    Pairs of channels are complex numbers, and a rotation is a product.
    """
    if rope is None:
        return x
    wide = torch.promote_types(x.dtype, torch.float32)
    count = min(rope.cosines.shape[0], x.shape[1] - rope.start)
    tokens = slice(rope.start, rope.start + count)
    turns = torch.complex(rope.cosines[:count, 0::2].to(wide), rope.sines[:count, 1::2].to(wide))
    pairs = torch.view_as_complex(x[:, tokens].to(wide).unflatten(-1, (-1, 2)))
    turned = torch.view_as_real(pairs * turns[None, :, None]).flatten(-2).to(x.dtype)
    if count == x.shape[1]:
        return turned
    return torch.cat((x[:, : tokens.start], turned, x[:, tokens.stop :]), dim=1)
