"""The block layout of an order: which token is in which slot of which block."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ajour.grid import BLOCK
from ajour.orders import order

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ajour.grid import TokenGrid


def block_sizes(grid: TokenGrid) -> NDArray[np.int32]:
    """Tokens in each block: int32 (N,)."""
    sizes = np.full(grid.blocks, BLOCK, dtype=np.int32)
    if grid.video_tokens % BLOCK:
        sizes[grid.video_blocks - 1] = grid.video_tokens % BLOCK
    if grid.exact_tokens % BLOCK:
        sizes[-1] = grid.exact_tokens % BLOCK
    return sizes


def token_slots(grid: TokenGrid, name: str) -> NDArray[np.int32]:
    """Model-order token index of each block slot under an order: int32 (N * 128,), -1 if empty."""
    slots = np.full((grid.blocks, BLOCK), -1, dtype=np.int32)
    flat = slots.reshape(-1)
    flat[: grid.video_tokens] = order(name, grid.shape) + grid.before
    exact = np.arange(grid.exact_tokens)
    exact[grid.before :] += grid.video_tokens
    start = grid.video_blocks * BLOCK
    flat[start : start + grid.exact_tokens] = exact
    return flat


def token_places(slots: NDArray[np.int32], grid: TokenGrid) -> NDArray[np.int64]:
    """Slot of each token, the inverse of `token_slots`: (..., N * 128) to int64 (..., tokens)."""
    return np.argsort(slots, axis=-1, kind="stable")[..., -grid.seq_len :]


class Layout(NamedTuple):
    """The block layout of an order, as tensors.

    Args:
        slots: int64 (N * 128,), see `token_slots`.
        sizes: int32 (N,), see `block_sizes`.
        places: int64 (tokens,), see `token_places`.
    """

    slots: torch.Tensor
    sizes: torch.Tensor
    places: torch.Tensor

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens, heads, channels) to float32 (heads, N, 128, channels), empty slots zero."""
        packed = x[self.slots.clamp(min=0)].float()
        packed = packed.masked_fill_((self.slots < 0)[:, None, None], 0)
        return packed.unflatten(0, (-1, BLOCK)).permute(2, 0, 1, 3).contiguous()


@lru_cache(maxsize=32)
def block_layout(grid: TokenGrid, name: str, device: torch.device) -> Layout:
    """The block layout of an order on a device."""
    slots = token_slots(grid, name)
    arrays = (slots.astype(np.int64), block_sizes(grid), token_places(slots, grid))
    return Layout(*(torch.from_numpy(x).to(device) for x in arrays))
