"""Orders: bijections between a grid's raster order and the order in which tokens form blocks.

An order is an int64 array `perm` of length V (video tokens): `perm[i]` is the raster index of the
i-th token. A block is 128 consecutive entries.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ajour.grid import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

ORDERS = ("raster", "column", "hilbert", "bisection")
"""Names of all orders."""

Span = tuple[int, int]
"""Cells along an axis: how many, and the raster index from a cell to the next."""

SORTED_BY = np.array([[0, 2, 1], [1, 2, 0], [2, 1, 0]])
"""The coordinates that points are sorted by where an axis is halved."""


@lru_cache(maxsize=64)
def order(name: str, shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """The permutation of a grid's video tokens under an order.

    Args:
        name: `raster` (t, h, w), `column` (h, w, t: one pixel through time is contiguous),
            `hilbert` (generalised Hilbert curve through all three axes) or `bisection` (recursive
            halving into whole blocks: the blocks are more compact than along the curve, but
            consecutive blocks may not touch).
        shape: (frames, height, width), any extents.

    Returns:
        int64 array of length frames*height*width, read-only: raster index of each token in order.

    Raises:
        ValueError: if the order is unknown.
    """
    raster = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    if name == "raster":
        perm = raster.reshape(-1)
    elif name == "column":
        perm = raster.transpose(1, 2, 0).reshape(-1)
    elif name == "hilbert":
        perm = np.fromiter(_hilbert_box(shape), dtype=np.int64)
    elif name == "bisection":
        perm = raster[tuple(_bisect(np.indices(shape).reshape(3, -1).T).T)]
    else:
        raise ValueError(f"unknown order {name!r}; orders are {', '.join(ORDERS)}")
    perm = np.ascontiguousarray(perm)
    perm.setflags(write=False)
    return perm


def _bisect(points: NDArray[np.int64]) -> NDArray[np.int64]:
    """Halve a set of points (V, 3) across its longest axis, then its halves, down to single tokens.

    The left half of a part with more than a block is a whole number of blocks. So every block is a
    part of its own and therefore compact. All parts of a depth are halved together.
    """
    radix = int(points.max()) + 1
    starts = np.zeros(1, dtype=np.int64)
    while True:
        sizes = np.diff(starts, append=len(points))
        live = sizes > 2
        if not live.any():
            return points
        spans = np.maximum.reduceat(points, starts) - np.minimum.reduceat(points, starts)
        digits = np.repeat(SORTED_BY[spans.argmax(axis=1)], sizes, axis=0)
        first, second, third = np.take_along_axis(points, digits, axis=1).T
        within = np.arange(len(points)) - np.repeat(starts, sizes)
        keys = np.where(np.repeat(live, sizes), (first * radix + second) * radix + third, within)
        parts = np.repeat(np.arange(len(starts)), sizes)
        points = points[np.argsort(parts * radix**3 + keys)]
        whole_blocks = np.maximum(1, np.round(sizes / 2 / BLOCK).astype(np.int64)) * BLOCK
        power = 1 << np.log2(np.maximum(sizes - 1, 1)).astype(np.int64)
        halves = np.where(sizes > BLOCK, whole_blocks, power)
        starts = np.sort(np.concatenate([starts, (starts + halves)[live]]))


def _hilbert_box(shape: tuple[int, int, int]) -> Iterator[int]:
    """Raster indices of a box's cells along a generalised Hilbert curve, longest axis first."""
    steps = (shape[1] * shape[2], shape[2], 1)
    axes = sorted(range(3), key=lambda axis: -shape[axis])
    return _walk(0, *((shape[axis], steps[axis]) for axis in axes))


def _end(span: Span) -> int:
    """The raster index that a span adds."""
    return span[0] * span[1]


def _back(span: Span) -> Span:
    """The same cells in the other direction."""
    return span[0], -span[1]


def _split(span: Span) -> tuple[Span, Span]:
    """Split a span into two halves; the first has an even length if possible.

    After an even first half, the curve comes back on the side where it started.
    """
    length, step = span
    half = length // 2
    if half % 2 and length > 2:
        half += 1
    return (half, step), (length - half, step)


def _walk(at: int, a: Span, b: Span, c: Span) -> Iterator[int]:
    """Visit every cell of the box spanned by a, b, c from the corner cell `at`.

    The walk starts in the corner `at` and ends in the cell at the far end of `a`. A box that is
    long along `a` is cut in two along it; otherwise it is cut into the five pieces of the Hilbert
    motif: up along b, across c, along a, back across c, down along b. Odd extents make a few
    diagonal steps, never a gap.
    """
    la, lb, lc = a[0], b[0], c[0]
    if lb == 1 and lc == 1:
        yield from range(at, at + _end(a), a[1])
        return
    if la == 1 and lc == 1:
        yield from _walk(at, b, a, c)
        return
    if la == 1 and lb == 1:
        yield from _walk(at, c, a, b)
        return

    a1, a2 = _split(a)
    b1, b2 = _split(b)
    c1, c2 = _split(c)
    far = at + _end(a) - a[1]

    if 2 * la > 3 * lb and 2 * la > 3 * lc:
        yield from _walk(at, a1, b, c)
        yield from _walk(at + _end(a1), a2, b, c)
    elif lc == 1 or 3 * lb > 4 * lc:
        # Flat or wide in b: up along b, over along a, down along b.
        yield from _walk(at, b1, c, a1)
        yield from _walk(at + _end(b1), a, b2, c)
        yield from _walk(far + _end(b1) - b[1], _back(b1), c, _back(a2))
    elif lb == 1 or 3 * lc > 4 * lb:
        yield from _walk(at, c1, a1, b)
        yield from _walk(at + _end(c1), a, b, c2)
        yield from _walk(far + _end(c1) - c[1], _back(c1), _back(a2), b)
    else:
        up, across = _end(b1) - b[1], _end(c) - c[1]
        yield from _walk(at, b1, c1, a1)
        yield from _walk(at + _end(b1), c, a1, b2)
        yield from _walk(at + up + across, a, _back(b1), _back(c2))
        yield from _walk(far + _end(b1) + across, _back(c), _back(a2), b2)
        yield from _walk(far + up, _back(b1), c1, _back(a2))
