"""Finding the token grid among tokens, from where they are or from the shapes of their grids."""

import pytest
import torch

import ajour
from ajour import TokenGrid
from ajour.processors.raster import raster_of, raster_of_shapes
from tests.processors.families import SPARSE, call, make, sparse
from tests.processors.models import CASES, raster


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int32], ids=str)
@pytest.mark.parametrize(
    "extents", [(1, 258, 40), (1, 40, 300), (1, 514, 514), (2, 270, 290), (300, 3, 4)], ids=str
)
def test_places_that_are_rounded(dtype, extents):
    """Neighbours beyond 256 have the same place in bfloat16."""
    points = raster(extents).to(dtype)
    assert raster_of(points) == TokenGrid(*extents)
    other = raster((1, 300, 20)) + torch.tensor([extents[0], 0, 0])
    both = torch.cat((points, other.to(dtype)))
    if 2 * len(other) < len(points):
        assert raster_of(both) == TokenGrid(*extents, 0, len(other))


def test_equal_places_that_no_rounding_explains_are_no_row():
    """Such as tokens that all have the place 0, which are not on any grid."""
    nowhere = torch.zeros(40, 3)
    assert raster_of(nowhere) is None
    assert raster_of(torch.cat((nowhere, raster((1, 9, 9))))) == TokenGrid(1, 9, 9, 40, 0)


def test_shapes_of_grids():
    assert raster_of_shapes([(1, 4, 4)]) == TokenGrid(1, 4, 4)
    assert raster_of_shapes([(1, 4, 4), (2, 4, 4)]) == TokenGrid(3, 4, 4)
    assert raster_of_shapes([(1, 2, 3), (1, 4, 4), (1, 3, 2)]) == TokenGrid(1, 4, 4, 6, 6)
    assert raster_of_shapes([(1, 4, 4), (1, 2, 8)]) == TokenGrid(1, 4, 4, 0, 16)
    assert raster_of_shapes([(1, 4, 4), (1, 2, 3), (1, 4, 4)]) is None


@pytest.mark.parametrize("name", ["Flux", "Flux2"])
def test_flux_in_bfloat16_beyond_256_tokens_a_side(name):
    transformer, inputs = make(name), CASES[name].inputs((1, 262, 3), 7, 1)
    inputs["img_ids"] = inputs["img_ids"].to(torch.bfloat16)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
        assert ajour.summary(transformer).grid == "1x262x3 + 7 exact"
