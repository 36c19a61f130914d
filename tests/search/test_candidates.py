from dataclasses import replace

import pytest

from ajour import KINDS, Plan, TokenGrid
from ajour.lowering import density, level_map
from ajour.patterns import Diagonal, GeometricPattern, MultiDiagonal, Pyramid, Stripe, Window
from ajour.pipelines.bundled import FOLDER
from ajour.search.solve.candidates import WHOLE, default_candidates, widest

SHAPES = [(13, 16, 16), (7, 20, 24), (1, 64, 64), (2, 3, 5, 0, 7)]
GRIDS = [TokenGrid(*shape) for shape in SHAPES]
AXES = ("frames", "height", "width")


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_every_candidate_lowers_to_blocks_of_its_own(grid):
    candidates = default_candidates(grid)
    assert next(iter(candidates)) == "full"
    geometric = [p for p in candidates.values() if isinstance(p, GeometricPattern)]
    maps = {(p.order, level_map(p, grid).tobytes()) for p in geometric}
    assert len(maps) == len(geometric)
    densities = {name: density(pattern, grid) for name, pattern in candidates.items()}
    assert densities["full"] == 1
    assert min(densities, key=densities.get) == "skip"


def test_every_kind_has_several_widths():
    kinds = [pattern.kind for pattern in default_candidates(GRIDS[1]).values()]
    assert set(kinds) == set(KINDS)
    for kind in set(KINDS) - {"full", "skip"}:
        assert kinds.count(kind) >= 3


def test_names_begin_with_the_kind():
    for name, pattern in default_candidates(GRIDS[0]).items():
        assert name.replace("-", "_").startswith(pattern.kind)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize(
    "pattern",
    [
        Diagonal(0.0),
        Diagonal(0.26),
        Diagonal(1.04, first_frame=True),
        MultiDiagonal(0, 0),
        MultiDiagonal(1, WHOLE),
        Window(1, 1, 1),
        Pyramid(0, 1, 1, growth=1.1),
        Stripe(3),
    ],
    ids=str,
)
def test_the_widest_pattern_has_the_same_blocks_and_a_wider_one_has_more(pattern, grid):
    wide = widest(pattern, grid)
    blocks = level_map(pattern, grid)
    assert (level_map(wide, grid) == blocks).all()
    assert type(wide) is type(pattern)
    steps = dict.fromkeys(AXES, 1)
    if isinstance(wide, Diagonal):
        steps["frames"] = 0.001 + 1 / (grid.height * grid.width)
    for axis, step in steps.items():
        width = getattr(wide, axis, WHOLE)
        assert width >= getattr(pattern, axis, 0)
        if width < getattr(grid, axis) - 1 and grid.video_blocks > 1:
            wider = replace(wide, **{axis: width + step})
            assert (level_map(wider, grid) != blocks).any()


def test_a_band_that_covers_more_than_it_says_says_it():
    """133 tokens need blocks two away, as 256 tokens do: one frame, here as on other grids."""
    wide = widest(Diagonal(0.52), TokenGrid(13, 16, 16))
    assert wide == Diagonal(1.0)
    elsewhere = TokenGrid(13, 12, 20)
    assert density(wide, elsewhere) > density(Diagonal(0.52), elsewhere)


def test_the_bundled_plan_has_the_widest_patterns():
    plan = Plan.load(FOLDER / "plan.json")
    grid = TokenGrid.parse(plan.provenance["grid"])
    geometric = [p for p in plan.patterns.values() if isinstance(p, GeometricPattern)]
    assert geometric == [widest(pattern, grid) for pattern in geometric]
