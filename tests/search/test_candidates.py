import pytest

from ajour import FAMILIES, TokenGrid, lower
from ajour.lowering import level_map
from ajour.search.candidates import default_candidates

SHAPES = [(13, 16, 16), (7, 20, 24), (1, 64, 64), (2, 3, 5, 0, 7)]
GRIDS = [TokenGrid(*shape) for shape in SHAPES]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_every_candidate_lowers_to_blocks_of_its_own(grid):
    found = default_candidates(grid)
    assert next(iter(found)) == "full"
    maps = {(p.order, level_map(p, grid).tobytes()) for p in found.values()}
    assert len(maps) == len(found)
    densities = {name: lower([pattern], grid).density() for name, pattern in found.items()}
    assert densities["full"] == 1
    assert min(densities, key=densities.get) == "skip"


def test_every_geometric_family_is_tried_at_several_widths():
    found = default_candidates(GRIDS[1])
    families = [pattern.family for pattern in found.values()]
    assert set(families) == set(FAMILIES) - {"captured"}
    for family in ("window", "diagonal", "multi_diagonal", "stripe", "pyramid"):
        assert families.count(family) >= 3


def test_names_say_the_family():
    for name, pattern in default_candidates(GRIDS[0]).items():
        assert name.replace("-", "_").startswith(pattern.family)
