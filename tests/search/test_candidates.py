import pytest

from ajour import FAMILIES, TokenGrid
from ajour.lowering import density, level_map
from ajour.patterns import GeometricPattern
from ajour.search.candidates import default_candidates

SHAPES = [(13, 16, 16), (7, 20, 24), (1, 64, 64), (2, 3, 5, 0, 7)]
GRIDS = [TokenGrid(*shape) for shape in SHAPES]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_every_candidate_lowers_to_blocks_of_its_own(grid):
    found = default_candidates(grid)
    assert next(iter(found)) == "full"
    geometric = [p for p in found.values() if isinstance(p, GeometricPattern)]
    maps = {(p.order, level_map(p, grid).tobytes()) for p in geometric}
    assert len(maps) == len(geometric)
    densities = {name: density(pattern, grid) for name, pattern in found.items()}
    assert densities["full"] == 1
    assert min(densities, key=densities.get) == "skip"


def test_every_family_is_tried_at_several_widths():
    found = default_candidates(GRIDS[1])
    families = [pattern.family for pattern in found.values()]
    assert set(families) == set(FAMILIES)
    for family in set(FAMILIES) - {"full", "skip"}:
        assert families.count(family) >= 3


def test_names_say_the_family():
    for name, pattern in default_candidates(GRIDS[0]).items():
        assert name.replace("-", "_").startswith(pattern.family)
