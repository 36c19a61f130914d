"""Measuring captured patterns: where attention goes, how similar keys are, the resulting levels.

Computed for some query blocks and heads at a time, so that no (tokens x tokens) tensor exists, and
without waiting for the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ajour.backends import KERNEL_BACKENDS, on_device
from ajour.dispatch import checked_backend
from ajour.grid import BLOCK
from ajour.layout import block_layout
from ajour.lists import LEVELS, indices
from ajour.table import BlockTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ajour.grid import TokenGrid
    from ajour.patterns import Captured

LOGITS_BYTES = 256 * 2**20
"""Size of the logits that exist at the same time."""


def block_mass(
    q: torch.Tensor,
    k: torch.Tensor,
    grid: TokenGrid,
    order: str,
    *,
    samples: int = 8,
    scale: float | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """Share of a query block's attention to video keys that goes to each key block.

    The mean over the batch and over queries sampled from the block; all keys are used.

    Args:
        q: (batch, tokens, heads, head_dim), as attention sees it, in the model's token order.
        k: same shape.
        grid: the token grid.
        order: name of the order that forms the blocks.
        samples: queries per block, a power of two. `samples` / 128 of dense attention's logits are
            computed; the kernel computes them twice.
        scale: factor on the logits; 1 / sqrt(head_dim) by default.
        backend: one of `ajour.BACKENDS`, or None to choose, as in `ajour.attention`. `hopper` and
            `triton` measure with the same Triton kernel, `cpu` and `reference` with PyTorch.

    Returns:
        float32 (heads, Nv, Nv), rows sum to 1.

    Raises:
        ValueError: if the backend is unknown, `samples` is not a power of two, or the batch or the
            heads are none.
        RuntimeError: if an explicit backend cannot run here.
    """
    if samples.bit_count() != 1:
        raise ValueError(f"samples must be a power of two, got {samples}")
    _check_not_empty(q)
    dim, blocks, device = q.shape[-1], grid.video_blocks, q.device
    scale = 1.0 / math.sqrt(dim) if scale is None else scale
    tokens = _blocked_tokens(grid, order, device)
    sizes = (tokens >= 0).sum(dim=1)
    # Evenly spread; places within strata vary, because a fixed stride can match the grid's.
    strata = torch.arange(samples, dtype=torch.float32, device=device)
    block = torch.arange(blocks, dtype=torch.float32, device=device)[:, None]
    jitter = (block * 0.618034 + strata * 0.754878) % 1
    queries = tokens.gather(1, ((strata + jitter) / samples * sizes[:, None]).long())
    if checked_backend(backend, q) in KERNEL_BACKENDS:
        from ajour.backends.mass import shares_of_blocks

        with on_device(device):
            return shares_of_blocks(q, k, tokens, queries, scale)
    return eager_shares(q, k, tokens.flatten()[: grid.video_tokens], queries, scale)


def eager_shares(
    q: torch.Tensor, k: torch.Tensor, keys: torch.Tensor, queries: torch.Tensor, scale: float
) -> torch.Tensor:
    """Same as `mass.shares_of_blocks`, on any device; `keys`: tokens of all key blocks, in turn.

    Logits are computed in float32 or better, which is also fastest on a CPU.
    """
    batch, _, heads, _ = q.shape
    blocks, samples = queries.shape
    whole = len(keys) // BLOCK * BLOCK
    wide = torch.promote_types(q.dtype, torch.float32)
    unused = q.new_empty((), dtype=wide)
    mass = q.new_zeros(heads, blocks, blocks, dtype=torch.float32)
    rows = max(1, LOGITS_BYTES // (4 * samples * blocks * BLOCK))
    for sample in range(batch):
        for head in range(heads):
            key = k[sample, keys, head].to(wide)
            for start in range(0, blocks, rows):
                query = q[sample, queries[start : start + rows].flatten(), head].to(wide)
                logits = torch.addmm(unused, query, key.T, beta=0, alpha=scale)
                weights = logits.softmax(dim=-1, dtype=mass.dtype)
                shares = weights[:, :whole].unflatten(1, (-1, BLOCK)).sum(dim=-1)
                if whole < len(keys):
                    rest = weights[:, whole:].sum(dim=-1, keepdim=True)
                    shares = torch.cat([shares, rest], dim=-1)
                mass[head, start : start + rows] += shares.unflatten(0, (-1, samples)).mean(dim=1)
    return mass / batch


def self_similarity(k: torch.Tensor, grid: TokenGrid, order: str) -> torch.Tensor:
    """Similarity of the keys of each pooled group: cosine of its first and last key.

    Args:
        k: (batch, tokens, heads, head_dim), as attention sees it.
        grid: the token grid.
        order: name of the order that forms the blocks.

    Returns:
        float32 (heads, Nv, 3): the mean over the groups of a key block and over the batch, for
        levels 1 to 3 (Pyramid Sparse Attention, arXiv 2512.04025).

    Raises:
        ValueError: if the batch or the heads are none.
    """
    _check_not_empty(k)
    tokens = _blocked_tokens(grid, order, k.device)
    similarity = k.new_empty(k.shape[2], grid.video_blocks, LEVELS - 1, dtype=torch.float32)
    for level in range(1, LEVELS):
        groups = tokens.unflatten(1, (-1, 1 << level))
        members = (groups >= 0).sum(dim=2)
        ends = [groups[..., 0], groups.gather(2, (members - 1).clamp(min=0)[..., None])[..., 0]]
        first, last = (end.clamp(min=0).flatten() for end in ends)
        filled = members > 0
        for head, key in enumerate(k.unbind(2)):
            cosine = torch.cosine_similarity(key[:, first].float(), key[:, last].float(), dim=-1)
            cosine = cosine.mean(0).view_as(filled) * filled
            similarity[head, :, level - 1] = cosine.sum(1) / filled.sum(1)
    return similarity


def first_frame_blocks(
    grid: TokenGrid, order: str, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Video blocks that hold a token of the first frame: bool (Nv,)."""
    tokens = _blocked_tokens(grid, order, torch.device(device)) - grid.before
    return ((tokens >= 0) & (tokens < grid.height * grid.width)).any(dim=1)


def random_levels(pattern: Captured, grid: TokenGrid) -> torch.Tensor:
    """Levels that a pattern assigns if attention is random, to count them: int8 (1, Nv, Nv)."""
    shape = (1, grid.video_blocks, grid.video_blocks)
    generator = torch.Generator("cpu").manual_seed(0)
    mass = torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu")
    return pattern.select(mass, first_frame_blocks(grid, pattern.order))


class Importance:
    """Measurements of a layer that captured patterns depend on, made once for all of them.

    All methods take the pattern and the heads that have it; None for all heads.

    Args:
        q: (batch, tokens, heads, head_dim), as attention sees it, in the model's token order.
        k: same shape.
        grid: the token grid.
        backend: what measures, see `block_mass`.
    """

    def __init__(
        self, q: torch.Tensor, k: torch.Tensor, grid: TokenGrid, backend: str | None = None
    ) -> None:
        self.grid = grid
        self.backend = backend
        self._q, self._k = q, k
        self._mass: dict[str, torch.Tensor] = {}
        self._similarity: dict[str, torch.Tensor] = {}
        self._share_above: dict[tuple[object, ...], torch.Tensor] = {}

    def share_above(self, pattern: Captured, heads: Sequence[int] | None = None) -> torch.Tensor:
        """Share that is ranked above each block, see `Captured.share_above`."""
        key = (*pattern.ranking, None if heads is None else tuple(heads))
        if key not in self._share_above:
            order = pattern.order
            if order not in self._mass:
                self._mass[order] = block_mass(
                    self._q, self._k, self.grid, order, backend=self.backend
                )
            first = first_frame_blocks(self.grid, order, self._q.device)
            mass = _of_heads(self._mass[order], heads)
            self._share_above[key] = pattern.share_above(mass, first)
        return self._share_above[key]

    def similarity(
        self, pattern: Captured, heads: Sequence[int] | None = None
    ) -> torch.Tensor | None:
        """Similarity of keys, see `self_similarity`; None if the pattern does not need it."""
        if not pattern.needs_similarity:
            return None
        if pattern.order not in self._similarity:
            self._similarity[pattern.order] = self_similarity(self._k, self.grid, pattern.order)
        return _of_heads(self._similarity[pattern.order], heads)

    def levels(self, pattern: Captured, heads: Sequence[int] | None = None) -> torch.Tensor:
        """Levels of video key blocks: int8 (heads, Nv, Nv), -1 where dropped."""
        return pattern.assign(self.share_above(pattern, heads), self.similarity(pattern, heads))


def capture(
    q: torch.Tensor,
    k: torch.Tensor,
    grid: TokenGrid,
    pattern: Captured,
    backend: str | None = None,
) -> torch.Tensor:
    """The levels of one pattern for all heads; see `Importance`."""
    return Importance(q, k, grid, backend).levels(pattern)


def _of_heads(x: torch.Tensor, heads: Sequence[int] | None) -> torch.Tensor:
    return x if heads is None else x[indices(heads, x.device)]


@dataclass(frozen=True)
class PackedLevels:
    """A level map of a captured pattern, with several blocks in each byte.

    Args:
        data: uint8 (bytes,).
        shape: (heads, Nv, Nv).
        levels: the levels that can occur, ascending. With 2, 3, 4, 5 or 6 of them a byte holds 8,
            5, 4, 3 or 3 blocks.
    """

    data: torch.Tensor
    shape: tuple[int, ...]
    levels: tuple[int, ...]

    @classmethod
    def pack(cls, levels: torch.Tensor, possible: tuple[int, ...]) -> PackedLevels:
        """Pack an int8 level map.

        Every value must be one of `possible`. Another value raises RuntimeError on a CPU; on a GPU
        it fails an assertion on the device, because nothing here waits for it.
        """
        unknown = len(possible)
        digits = torch.full_like(levels, unknown, dtype=torch.uint8)
        for digit, level in enumerate(possible):
            digits = torch.where(levels == level, digit, digits)
        torch._assert_async(
            (digits < unknown).all(), f"a level map to pack has levels other than {possible}"
        )
        powers = cls._powers(possible, levels.device)
        flat = torch.nn.functional.pad(digits.flatten(), (0, -levels.numel() % len(powers)))
        data = (flat.view(-1, len(powers)) * powers).sum(1).to(torch.uint8)
        return cls(data, tuple(levels.shape), possible)

    def unpack(self) -> torch.Tensor:
        """The level map: int8 of `shape`, on the device of the data."""
        powers = self._powers(self.levels, self.data.device)
        digits = self.data[:, None].div(powers, rounding_mode="floor") % max(2, len(self.levels))
        digits = digits.flatten()[: math.prod(self.shape)].view(self.shape)
        levels = torch.full_like(digits, self.levels[0], dtype=torch.int8)
        for digit, level in enumerate(self.levels[1:], 1):
            levels = torch.where(digits == digit, level, levels)
        return levels

    @staticmethod
    def _powers(levels: tuple[int, ...], device: torch.device) -> torch.Tensor:
        """What a byte's digits are multiplied by: uint8 (digits,)."""
        base = max(2, len(levels))
        digits = int(math.log(256, base) + 1e-9)
        return (base ** torch.arange(digits, device=device)).to(torch.uint8)


@dataclass(frozen=True)
class CapturedRows:
    """The level map of a captured pattern for some heads of a layer.

    Args:
        levels: the level map, (rows, Nv, Nv).
        heads: int64 (rows,), the head of each row, on the device of the levels.
    """

    levels: PackedLevels
    heads: torch.Tensor

    @classmethod
    def of(cls, levels: torch.Tensor, heads: Sequence[int], pattern: Captured) -> CapturedRows:
        """Pack the level map (rows, Nv, Nv) of a pattern for some heads."""
        packed = PackedLevels.pack(levels, pattern.levels)
        return cls(packed, indices(heads, levels.device))

    @property
    def expanded_nbytes(self) -> int:
        """Bytes of the lists of video keys in a block table."""
        return 4 * math.prod(self.levels.shape)

    def to(self, device: torch.device | str) -> CapturedRows:
        """The map on another device."""
        levels = replace(self.levels, data=self.levels.data.to(device))
        return CapturedRows(levels, self.heads.to(device))


def expand(
    tables: Sequence[BlockTable], rows_of_layers: Sequence[Sequence[CapturedRows]]
) -> list[BlockTable]:
    """Tables with captured rows, for all layers at once.

    Args:
        tables: one per layer, see `BlockTable.with_rows`.
        rows_of_layers: captured rows of each layer, for one or more patterns.
    """
    return BlockTable.with_rows(
        tables,
        [
            (
                torch.cat([rows.levels.unpack() for rows in layer_rows]),
                torch.cat([rows.heads for rows in layer_rows]),
                max(max(rows.levels.levels) for rows in layer_rows),
            )
            for layer_rows in rows_of_layers
        ],
    )


def _check_not_empty(x: torch.Tensor) -> None:
    if x.numel() == 0:
        raise ValueError(
            "attention is measured on at least one sample and one head, got (batch, tokens, heads, "
            f"head_dim) {tuple(x.shape)}"
        )


def _blocked_tokens(grid: TokenGrid, order: str, device: torch.device) -> torch.Tensor:
    """Model-order index of the token in each slot of each video block: int64 (Nv, 128), or -1."""
    return block_layout(grid, order, device).slots.view(-1, BLOCK)[: grid.video_blocks]
