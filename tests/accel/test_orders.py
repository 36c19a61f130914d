import numpy as np
import pytest

from ajour import BLOCK, ORDERS, order

SHAPES = [
    (1, 1, 1), (1, 2, 3), (2, 3, 5), (1, 7, 1), (13, 1, 9), (5, 5, 5), (13, 16, 16), (7, 1, 1),
    (3, 7, 9), (1, 33, 17), (4, 4, 4), (2, 2, 2), (9, 12, 20), (1, 64, 64), (21, 30, 52),
]  # fmt: skip


def block_radius(perm, shape):
    points = np.stack(np.unravel_index(perm, shape), axis=1).astype(float)
    blocks = points[: len(points) // BLOCK * BLOCK].reshape(-1, BLOCK, 3)
    offsets = blocks - blocks.mean(axis=1, keepdims=True)
    return np.sqrt((offsets**2).sum(axis=2).mean(axis=1)).mean()


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_order_is_a_bijection(name, shape):
    assert np.array_equal(np.sort(order(name, shape)), np.arange(np.prod(shape)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_hilbert_curve_never_jumps(shape):
    points = np.stack(np.unravel_index(order("hilbert", shape), shape), axis=1)
    assert np.abs(np.diff(points, axis=0)).max(initial=0) <= 1


@pytest.mark.parametrize("name", ["hilbert", "bisection"])
def test_local_orders_make_compact_blocks(name):
    shape = (21, 30, 52)
    assert block_radius(order(name, shape), shape) < 3.0
    assert block_radius(order("raster", shape), shape) > 15.0


def test_column_order_keeps_a_pixel_together_through_time():
    frames = order("column", (3, 2, 2))[:3] // 4
    assert frames.tolist() == [0, 1, 2]


def test_an_unknown_order_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown order 'spiral'; orders are raster"):
        order("spiral", (1, 2, 3))
