"""Finding the token grid among tokens, from where they are or from the shapes of their grids."""

import pytest
import torch

from ajour import TokenGrid
from ajour.processors.raster import raster_of, raster_of_shapes
from tests.processors.models import raster


@pytest.mark.parametrize("extents", [(1, 1, 1), (1, 3, 5), (4, 1, 2), (3, 2, 7)], ids=str)
def test_a_whole_raster(extents):
    points = raster(extents)
    assert raster_of(points) == TokenGrid(*extents)
    assert raster_of(points * torch.tensor([0.3, 8, 32]) + 5) == TokenGrid(*extents)
    if len(points) > 2:
        assert raster_of(points.flip(0)) is None
        assert raster_of(points[torch.randperm(len(points))]) != TokenGrid(*extents)


@pytest.mark.parametrize("before", [(), (1, 2, 7), (1, 3, 5), (1, 4, 4)], ids=str)
@pytest.mark.parametrize("after", [(), (1, 2, 7), (1, 3, 5), (2, 2, 2)], ids=str)
def test_tokens_around_the_raster(before, after):
    parts = [raster(extents) if extents else torch.zeros(0, 3) for extents in (before, after)]
    points = torch.cat((parts[0], raster((3, 3, 5)), parts[1]))
    assert raster_of(points) == TokenGrid(3, 3, 5, len(parts[0]), len(parts[1]))


def test_later_frames_of_the_same_size_belong_to_the_raster():
    later = raster((2, 3, 5)) + torch.tensor([10, 0, 0])
    assert raster_of(torch.cat((raster((3, 3, 5)), later))) == TokenGrid(5, 3, 5)
    moved = later + torch.tensor([0, 0, 1])
    assert raster_of(torch.cat((raster((3, 3, 5)), moved))) == TokenGrid(3, 3, 5, 0, 30)


def test_a_frame_with_a_gap_is_not_on_the_raster():
    points = raster((4, 3, 5))
    assert raster_of(points[:-1]) == TokenGrid(3, 3, 5, 0, 14)
    assert raster_of(points[1:]) == TokenGrid(3, 3, 5, 14, 0)
    gap = torch.cat((points[:20], points[21:]))
    assert raster_of(gap) == TokenGrid(2, 3, 5, 29, 0)


def test_less_than_half_is_no_raster():
    assert raster_of(torch.cat((raster((1, 4, 4)), raster((1, 3, 5))))) == TokenGrid(1, 4, 4, 0, 15)
    frames = [raster(extents) for extents in ((1, 4, 4), (1, 3, 5), (1, 2, 6))]
    assert raster_of(torch.cat(frames)) is None


def test_shapes_of_grids():
    assert raster_of_shapes([(1, 4, 4)]) == TokenGrid(1, 4, 4)
    assert raster_of_shapes([(1, 4, 4), (2, 4, 4)]) == TokenGrid(3, 4, 4)
    assert raster_of_shapes([(1, 2, 3), (1, 4, 4), (1, 3, 2)]) == TokenGrid(1, 4, 4, 6, 6)
    assert raster_of_shapes([(1, 4, 4), (1, 2, 8)]) == TokenGrid(1, 4, 4, 0, 16)
    assert raster_of_shapes([(1, 4, 4), (1, 2, 3), (1, 4, 4)]) is None
