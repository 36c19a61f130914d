"""What is drawn of plans and patterns, as data; pages escape; files are bounded."""

import base64
import re
import zipfile

import numpy as np
import pytest
from PIL import Image

from ajour import Captured, Full, Phase, Plan, Pyramid, Schedule, Skip, TokenGrid, Window
from ajour.lowering import level_map
from ajour.orders import order
from ajour.patterns import KINDS
from ajour.pipelines.draw import draw_pattern, draw_plan, is_drawn
from ajour.pipelines.drawing import (
    DENSE_COLOUR,
    KIND_COLOURS,
    LEVEL_COLOURS,
    LEVEL_NAMES,
    head_densities,
    head_map,
    in_words,
    key_pixels,
    level_pixels,
    pattern_view,
    spans,
    spread,
)
from ajour.pipelines.files import read_arrays
from ajour.pipelines.pages import image_url, templates
from tests.pipelines.conftest import make_plan

GRID = TokenGrid(5, 12, 16, before=3, after=70)


def test_every_kind_and_level_has_a_colour_of_its_own():
    assert KIND_COLOURS.keys() == KINDS.keys()
    colours = [*KIND_COLOURS.values(), *LEVEL_COLOURS]
    assert len(set(colours)) == len(colours)
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)
    assert len(LEVEL_NAMES) == len(LEVEL_COLOURS)


def test_spans_cover_all_noise_levels_and_an_assignment_keeps_its_colour():
    phases = (Phase(1.0, "dense"), Phase(0.8, "a", 4), Phase(0.5, "b"), Phase(0.2, "a"))
    drawn = spans(Schedule(phases))
    assert [(span.start, span.end) for span in drawn] == [
        (1, 0.8),
        (0.8, 0.5),
        (0.5, 0.2),
        (0.2, 0),
    ]
    assert drawn[0].colour == DENSE_COLOUR
    assert drawn[1].colour == drawn[3].colour != drawn[2].colour
    assert str(drawn[1]) == "a from 0.8 to 0.5, dense every 4 steps"


def test_a_head_map_has_names_kinds_and_a_legend():
    plan = make_plan([Skip(), Full()])
    heads = head_map(plan, "sparse")
    assert heads.names == plan.assignments["sparse"]
    assert heads.kinds[0] == tuple(plan.patterns[name].kind for name in heads.names[0])
    assert heads.legend == {"full": KIND_COLOURS["full"], "skip": KIND_COLOURS["skip"]}
    expected = {"full": 1.0, "skip": 0.0}
    densities = head_densities(plan, "sparse", TokenGrid(3, 8, 7))
    assert densities.tolist() == [[expected[kind] for kind in row] for row in heads.kinds]


@pytest.mark.parametrize("pattern", [Window(1, 2, 2), Pyramid(1, 1, 1)])
def test_a_view_shows_the_blocks_of_video_tokens_and_the_keys_of_the_query(pattern):
    query = (4, 11, 3)
    view = pattern_view(pattern, GRID, query=query)
    video = TokenGrid(*GRID.shape)
    assert np.array_equal(view.blocks, level_map(pattern, video))
    perm = order(pattern.order, video.shape)
    raster = np.ravel_multi_index(query, video.shape)
    assert view.query_block == list(perm).index(raster) // 128
    for place, token in enumerate(perm):
        assert view.keys.flat[token] == view.blocks[view.query_block, place // 128]


def test_a_captured_pattern_is_shown_as_measured_or_not_at_all():
    pattern = Captured((0.2, 0.2, 0.2, 1.0))
    assert pattern_view(pattern, GRID) is None
    assert pattern_view(pattern, GRID, np.zeros((3, 3), np.int8)) is None  # of another grid
    levels = np.full((8, 8), 2, np.int8)
    view = pattern_view(pattern, GRID, levels)
    assert view.blocks is levels
    assert (view.keys == 2).all()
    assert view.query == (2, 6, 8)


def test_pixels_of_levels_and_keys():
    levels = np.array([[-1, 0], [1, 3]], np.int8)
    hexes = ["#" + bytes(pixel).hex() for pixel in level_pixels(levels).reshape(-1, 3)]
    assert hexes == [LEVEL_COLOURS[i] for i in (0, 1, 2, 4)]
    assert key_pixels(pattern_view(Full(), GRID, frames=3)).shape == (12, 3 * 17 - 1, 3)


@pytest.mark.parametrize(
    ("count", "most", "indices"), [(1, 5, (0,)), (3, 5, (0, 1, 2)), (21, 3, (0, 10, 20))]
)
def test_indices_are_spread_with_both_ends(count, most, indices):
    assert spread(count, most) == indices


def test_pictures_as_data():
    import cv2

    pixels = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    for form in ("png", "jpeg"):
        head, data = image_url(pixels, form).split(",")
        assert head == f"data:image/{form};base64"
        decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 1)[..., ::-1]
        assert decoded.shape == pixels.shape
        assert np.array_equal(decoded, pixels) == (form == "png")


def test_templates_escape_and_know_their_names():
    from jinja2 import UndefinedError

    pages = templates("ajour.demo")
    assert pages.from_string("{{ x }}").render(x="<b>") == "&lt;b&gt;"
    with pytest.raises(UndefinedError):
        pages.from_string("{{ unknown }}").render()


def test_arrays_are_read_within_a_limit(tmp_path):
    path = tmp_path / "maps.npz"
    np.savez_compressed(path, a=np.zeros((100, 100), np.int8))
    assert read_arrays(path, 20_000, "maps")["a"].shape == (100, 100)
    with pytest.raises(ValueError, match=r"cannot read maps maps.npz: .* the limit is 5000"):
        read_arrays(path, 5_000, "maps")  # 10,000 bytes, although the file itself is small
    assert path.stat().st_size < 5_000


def test_files_that_are_no_arrays_are_refused(tmp_path):
    objects = tmp_path / "objects.npz"
    np.savez(objects, a=np.array([{}], dtype=object))
    text = tmp_path / "text.npz"
    text.write_text("no archive")
    other = tmp_path / "other.npz"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY damaged")
    for path in (objects, text, other, tmp_path / "missing.npz"):
        with pytest.raises(ValueError, match=f"cannot read maps {path.name}"):
            read_arrays(path, 10_000, "maps")


def test_many_reused_steps_are_told_in_one_phrase():
    phases = [Phase(1.0, "dense"), Phase(0.8, "a"), Phase(0.6, "reuse"), Phase(0.5, "a")]
    few = in_words(spans(Schedule(tuple(phases))))
    assert few == "dense from 1 to 0.8; a from 0.8 to 0.6; reuse from 0.6 to 0.5; a from 0.5 to 0"
    many = Schedule((*phases, Phase(0.3, "reuse"), Phase(0.2, "b")))
    assert in_words(spans(many)) == (
        "dense from 1; a from 0.8; b from 0.2; reused steps in 2 places from 0.6 to 0.2"
    )


def test_a_plan_of_many_patterns_is_drawn_on_one_screen(tmp_path):
    patterns = [Window(1 + i % 5, 1 + i % 7, 1 + i) for i in range(40)]
    path = tmp_path / "plan.png"
    names = {f"window-{i}": pattern for i, pattern in enumerate(patterns)}
    rows = tuple(tuple(f"window-{(4 * layer + i) % 40}" for i in range(4)) for layer in range(10))
    model = {"transformer": "Many", "layers": 10, "heads": 4, "head_dim": 64}
    phases = tuple(Phase(1 - i / 10, f"a{i}") for i in range(8))
    plan = Plan(model, names, {f"a{i}": rows for i in range(8)}, Schedule(phases))
    draw_plan(plan, TokenGrid(3, 8, 8), path)
    with Image.open(path) as picture:
        assert picture.size == (1400, 840)
    assert is_drawn(path)


def test_a_pattern_alone_is_drawn_larger_and_a_captured_one_only_in_words(tmp_path):
    for name, pattern in (("w", Window(1, 2, 2)), ("c", Captured((0.2, 0.2, 0.2, 1.0)))):
        draw_pattern(name, pattern, GRID, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size == (1400, 840)
