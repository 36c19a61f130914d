"""Orders: bijections between a grid's raster order and the order in which tokens form blocks.

An order is an int64 array `perm` of length V (video tokens): `perm[i]` is the raster index of the
i-th token. A block is 128 consecutive entries.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ajour.grid import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

ORDERS = ("raster", "column", "hilbert", "bisection")
"""Names of all orders."""

Vector = tuple[int, int, int]

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
    perm: NDArray[np.int64]
    if name == "raster":
        perm = np.arange(int(np.prod(shape)), dtype=np.int64)
    elif name == "column":
        raster = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
        perm = raster.transpose(1, 2, 0).reshape(-1)
    elif name == "hilbert":
        points = np.array(list(_hilbert_box(shape)), dtype=np.int64)
        perm = np.asarray(np.ravel_multi_index(tuple(points.T), shape), dtype=np.int64)
    elif name == "bisection":
        points = _bisect(np.indices(shape).reshape(3, -1).T)
        perm = np.asarray(np.ravel_multi_index(tuple(points.T), shape), dtype=np.int64)
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


def _hilbert_box(shape: tuple[int, int, int]) -> Iterator[Vector]:
    """Walk a box along a generalised Hilbert curve, longest axis first."""
    axes = sorted(range(3), key=lambda axis: -shape[axis])
    spans = [_unit(axis, shape[axis]) for axis in axes]
    return _walk((0, 0, 0), spans[0], spans[1], spans[2])


def _unit(axis: int, length: int) -> Vector:
    return (length * (axis == 0), length * (axis == 1), length * (axis == 2))


def _add(*vectors: Vector) -> Vector:
    return sum(v[0] for v in vectors), sum(v[1] for v in vectors), sum(v[2] for v in vectors)


def _scaled(v: Vector, factor: int) -> Vector:
    return (v[0] * factor, v[1] * factor, v[2] * factor)


def _neg(v: Vector) -> Vector:
    return _scaled(v, -1)


def _length(v: Vector) -> int:
    return abs(v[0] + v[1] + v[2])


def _step(v: Vector) -> Vector:
    """One cell along an axis-aligned vector."""
    return ((v[0] > 0) - (v[0] < 0), (v[1] > 0) - (v[1] < 0), (v[2] > 0) - (v[2] < 0))


def _split(v: Vector) -> tuple[Vector, Vector]:
    """Split an axis-aligned vector into two halves; the first has an even length if possible.

    After an even first half, the curve comes back on the side where it started.
    """
    length = _length(v)
    half = length // 2
    if half % 2 and length > 2:
        half += 1
    unit = _step(v)
    return _scaled(unit, half), _scaled(unit, length - half)


def _walk(at: Vector, a: Vector, b: Vector, c: Vector) -> Iterator[Vector]:
    """Visit every cell of the box spanned by a, b, c from the corner cell `at`.

    The walk starts in the corner `at` and ends in the cell at the far end of `a`. A box that is
    long along `a` is cut in two along it; otherwise it is cut into the five pieces of the Hilbert
    motif: up along b, across c, along a, back across c, down along b. Odd extents make a few
    diagonal steps, never a gap.
    """
    la, lb, lc = _length(a), _length(b), _length(c)
    if lb == 1 and lc == 1:
        unit = _step(a)
        for i in range(la):
            yield _add(at, _scaled(unit, i))
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
    last = _neg(_step(a))

    if 2 * la > 3 * lb and 2 * la > 3 * lc:
        yield from _walk(at, a1, b, c)
        yield from _walk(_add(at, a1), a2, b, c)
    elif lc == 1 or 3 * lb > 4 * lc:
        # Flat or wide in b: up along b, over along a, down along b.
        yield from _walk(at, b1, c, a1)
        yield from _walk(_add(at, b1), a, b2, c)
        down = _add(at, a, last, b1, _neg(_step(b)))
        yield from _walk(down, _neg(b1), c, _neg(a2))
    elif lb == 1 or 3 * lc > 4 * lb:
        yield from _walk(at, c1, a1, b)
        yield from _walk(_add(at, c1), a, b, c2)
        down = _add(at, a, last, c1, _neg(_step(c)))
        yield from _walk(down, _neg(c1), _neg(a2), b)
    else:
        back_b, back_c = _neg(_step(b)), _neg(_step(c))
        yield from _walk(at, b1, c1, a1)
        yield from _walk(_add(at, b1), c, a1, b2)
        yield from _walk(_add(at, b1, back_b, c, back_c), a, _neg(b1), _neg(c2))
        yield from _walk(_add(at, a, last, b1, c, back_c), _neg(c), _neg(a2), b2)
        yield from _walk(_add(at, a, last, b1, back_b), _neg(b1), c1, _neg(a2))
