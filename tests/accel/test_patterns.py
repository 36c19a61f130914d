import numpy as np
import pytest

from ajour import (
    BLOCK,
    Diagonal,
    Full,
    MultiDiagonal,
    Pyramid,
    Skip,
    Stripe,
    TokenGrid,
    Window,
    lower,
    order,
)
from ajour.lowering import level_map
from ajour.patterns.base import box_neighbours

PATTERNS = [
    Full(),
    Skip(),
    Window(1, 1, 2),
    Window(0, 2, 1),
    Window(1, 1, 1, order="hilbert"),
    Diagonal(0.6),
    Diagonal(1, first_frame=True),
    Diagonal(0),
    MultiDiagonal(1, 1),
    MultiDiagonal(0, 2),
    Stripe(2, 1),
    Stripe(3, 2, first_frame=False),
    Pyramid(0, 1, 1),
    Pyramid(0, 0, 1, growth=1.5, levels=2, tail=False),
    Pyramid(1, 0, 0, levels=1, order="hilbert"),
]
GRIDS = [TokenGrid(3, 7, 9), TokenGrid(1, 20, 13), TokenGrid(2, 3, 4), TokenGrid(5, 8, 8)]


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_blocks_are_the_exact_reduction_of_token_pairs(pattern, grid):
    places = np.stack(np.unravel_index(order(pattern.order, grid.shape), grid.shape), axis=1)
    expected = np.full((grid.video_blocks, grid.video_blocks), 4)
    for i, query in enumerate(places):
        for j, key in enumerate(places):
            cell = (i // BLOCK, j // BLOCK)
            if expected[cell] > 0 and (level := pattern.level(query, key, grid)) >= 0:
                expected[cell] = min(expected[cell], level)
    assert np.array_equal(pattern.video_levels(grid), np.where(expected == 4, -1, expected))


@pytest.mark.parametrize("radius", [(0, 0, 0), (0, 2, 1), (1, 1, 0)], ids=str)
@pytest.mark.parametrize("name", ["raster", "bisection"])
def test_boxes_of_more_blocks_than_a_word_has_bits(name, radius, monkeypatch):
    grid = TokenGrid(5, 16, 16)
    whole = box_neighbours(grid, name, radius)
    monkeypatch.setattr("ajour.patterns.base.WORD_BITS", 4)
    assert grid.video_blocks > 2 * 4
    assert np.array_equal(box_neighbours(grid, name, radius), whole)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_text_stays_exact(pattern):
    grid = TokenGrid(3, 7, 9, before=5, after=140)
    levels = level_map(pattern, grid)
    video = grid.video_blocks
    assert (levels[video:] == 0).all()
    assert (levels[:video, video:] == (-1 if pattern.kind == "skip" else 0)).all()


def test_heads_with_equal_patterns_share_a_row():
    table = lower([Full(), Window(1, 1, 1), Full()], TokenGrid(3, 7, 9))
    assert table.head_rows.tolist() == [0, 1, 0]
    assert table.offsets.shape[0] == 2


def test_boxes_of_a_pyramid_are_nested_and_pooled_tiles_are_cheaper():
    grid = TokenGrid(9, 16, 16)
    pyramid = Pyramid(1, 3, 3, growth=2)
    assert pyramid.boxes() == [(1, 3, 3), (3, 7, 7), (6, 14, 14), (12, 28, 28)]
    levels = level_map(pyramid, grid)
    assert set(np.unique(levels)) >= {0, 1}
    window = level_map(Window(1, 3, 3), grid)
    assert np.array_equal(levels == 0, window == 0)
    fine, pooled = (np.count_nonzero(levels == h, axis=1) for h in (0, 1))
    tiles = fine + -(-pooled // 2) + -(-np.count_nonzero(levels == 2, axis=1) // 4)
    tiles += -(-np.count_nonzero(levels == 3, axis=1) // 8)
    assert lower([pyramid], grid).density() == pytest.approx(tiles.sum() / levels.size)


def test_density_counts_tiles():
    grid = TokenGrid(4, 16, 16)
    assert lower([Full()], grid).density() == 1.0
    assert lower([Skip()], grid).density() == 0.0
    assert lower([Full(), Skip()], grid).density() == 0.5
    assert lower([Stripe(4)], grid).density() == 0.25


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Window(-1, 1, 1), "window: frames must be an integer from 0 to 1000000, got -1"),
        (lambda: Window(1, 1.5, 1), "window: height must be an integer"),
        (
            lambda: Window(1, 1, 1, order="zigzag"),
            "order must be one of bisection, hilbert, got 'zigzag'",
        ),
        (lambda: Diagonal(-0.5), "diagonal: frames must be a number"),
        (lambda: Diagonal(float("nan")), "diagonal: frames must be a number"),
        (lambda: Diagonal(1, first_frame=1), "first_frame must be true or false"),
        (lambda: MultiDiagonal(True, 1), "height must be an integer"),
        (lambda: Stripe(0), "stride must be an integer from 1 to 1000000"),
        (lambda: Stripe(2, 2), "offset must be below stride"),
        (lambda: Pyramid(1, 1, 1, growth=1), "growth must be a number over 1"),
        (lambda: Pyramid(1, 1, 1, levels=4), "levels must be an integer from 1 to 3"),
        (lambda: Pyramid(1, 1, 1, tail="drop"), "tail must be true or false"),
        (lambda: TokenGrid(0, 4, 4), "at least 1 token along each axis"),
        (lambda: TokenGrid(1, 4, 4, after=-1), "cannot be negative"),
    ],
)
def test_bad_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
