import random
from dataclasses import replace

import cv2
import pytest
import torch

from tools.mini.captions import (
    CAMERA_PHRASES,
    LIGHT_PHRASES,
    MOTION_PHRASES,
    PLACE_PHRASES,
    RELATION_PHRASES,
    SHADOW_PHRASES,
    canonical,
    caption,
    corpus,
)
from tools.mini.prompts import held_out_events, held_out_prompts
from tools.mini.scenes import (
    BACKGROUNDS,
    LINEAR_MOTIONS,
    MOTIONS,
    PLACES,
    TRAVEL,
    Scene,
    Thing,
    can_group,
    compatible,
    group_axis,
    is_held_out,
    legs,
    relation,
    render,
    sample_scene,
    with_event,
)


def draw(count, split="train", seed=0):
    rng = random.Random(seed)
    return [sample_scene(rng, split) for _ in range(count)]


def centroid(frame):
    """Mean position (x, y) of what differs from the corner's colour, in fractions."""
    weight = (frame - frame[:, :1, :1]).abs().sum(0)
    height, width = weight.shape
    x = (weight.sum(0) * (torch.arange(width) + 0.5)).sum() / weight.sum() / width
    y = (weight.sum(1) * (torch.arange(height) + 0.5)).sum() / weight.sum() / height
    return float(x), float(y)


def where(scene, index):
    """The phrase for a thing's start."""
    first, thing = scene.things[0], scene.things[index]
    if scene.related and index == 1:
        return f"{RELATION_PHRASES[relation(first, thing)]} the {first.colour} {first.shape}"
    return PLACE_PHRASES[thing.place]


def regions(frame, background):
    """Boxes (x, y, width, height) of the separate regions of a frame that are not background."""
    ground = torch.tensor(BACKGROUNDS[background])[:, None, None] * 2 - 1
    mask = ((frame - ground).abs().amax(0) > 0.25).byte().numpy()
    return cv2.connectedComponentsWithStats(mask)[2][1:, :4].tolist()


def test_same_scenes_give_the_same_bits_in_range():
    scenes = draw(12)
    assert scenes == draw(12)
    video = render(scenes, 3, 24, 40)
    assert video.shape == (12, 3, 3, 24, 40)
    assert video.dtype == torch.float32
    assert torch.isfinite(video).all()
    assert video.min() >= -1
    assert video.max() <= 1
    assert torch.equal(video, render(scenes, 3, 24, 40))


def test_a_batch_is_its_scenes():
    scenes = draw(8, seed=2)
    alone = torch.cat([render([scene], 3, 24, 24) for scene in scenes])
    torch.testing.assert_close(render(scenes, 3, 24, 24), alone)


def test_frame_count_changes_sampling_only():
    scenes = draw(6, seed=3)
    long = render(scenes, 5, 24, 24)
    torch.testing.assert_close(render(scenes, 3, 24, 24), long[:, :, ::2])
    torch.testing.assert_close(render(scenes, 1, 24, 24), long[:, :, :1])


def test_a_span_is_part_of_the_clip():
    scenes = draw(8, seed=6)
    whole = render(scenes, 9, 24, 24)
    torch.testing.assert_close(render(scenes, 5, 24, 24, span=(0.25, 0.75)), whole[:, :, 2:7])
    torch.testing.assert_close(render(scenes, 1, 24, 24, span=(0.5, 1.0)), whole[:, :, 4:5])
    assert not torch.allclose(whole[:, :, 2], whole[:, :, 4], atol=0.1)


@pytest.mark.parametrize(("height", "width"), [(48, 96), (96, 48)])
@pytest.mark.parametrize("shape", ["circle", "square", "ring", "cross"])
def test_shapes_are_not_stretched(shape, height, width):
    scene = Scene((Thing(shape, "white", "plain", "large", "centre", "still"),))
    seen = render([scene], 1, height, width)[0, 0, 0] > 0
    assert abs(int(seen.any(0).sum()) - int(seen.any(1).sum())) <= 1
    assert 13 <= int(seen.any(0).sum()) <= 20


@pytest.mark.parametrize("motion", LINEAR_MOTIONS)
def test_things_travel_as_named(motion):
    places = [place for place in PLACES if compatible(place, motion)]
    scenes = [
        Scene((Thing("square", "white", "plain", "small", place, motion),), seed=seed)
        for seed, place in enumerate(places)
    ]
    for place, video in zip(places, render(scenes, 3, 40, 60), strict=True):
        start, end = centroid(video[:, 0]), centroid(video[:, -1])
        for axis, sign in enumerate(TRAVEL[motion]):
            assert start[axis] == pytest.approx(PLACES[place][axis], abs=0.04)
            travel = end[axis] - start[axis]
            assert sign * travel > 0.33 if sign else abs(travel) < 0.02


def test_things_of_two_legs_travel_as_told():
    pairs = [(p, m) for p in PLACES for m in MOTIONS if compatible(p, m)]
    told = [(p, m, then) for p, m in pairs for then in legs(p, m)]
    assert {(m, then) for _, m, then in told} >= {("left", "right"), ("left", "up")}
    scenes = [
        Scene((Thing("square", "white", "plain", "small", place, motion, then),), seed=seed)
        for seed, (place, motion, then) in enumerate(told)
    ]
    for (_, *motions), video in zip(told, render(scenes, 3, 40, 60), strict=True):
        points = [centroid(video[:, index]) for index in range(3)]
        for leg, motion in enumerate(motions):
            for axis, sign in enumerate(TRAVEL[motion]):
                travel = points[leg + 1][axis] - points[leg][axis]
                assert sign * travel > 0.33 if sign else abs(travel) < 0.02


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("size", ["small", "medium"])
@pytest.mark.parametrize("place", ["left", "right", "top", "bottom", "centre"])
def test_a_group_is_a_line_of_its_count(place, size, count):
    thing = Thing("star", "white", "plain", size, place, "still", count=count)
    boxes = regions(render([Scene((thing,))], 1, 128, 128)[0, :, 0], "black")
    assert len(boxes) == count
    middles = [(x + width / 2, y + height / 2) for x, y, width, height in boxes]
    axis = group_axis(place)
    along, across = ({round(m[a]) for m in middles} for a in (axis, 1 - axis))
    assert max(across) - min(across) <= 1
    assert len(along) == count
    assert sum(m[axis] for m in middles) / count == pytest.approx(128 * PLACES[place][axis], abs=6)
    lengths = [box[2 + axis] for box in boxes]
    assert min(lengths) > 0.9 * max(lengths)  # the border cuts off little


def test_groups_have_room_for_their_motion():
    still = Thing("star", "red", "plain", "small", "top", "still")
    assert can_group(still)
    assert can_group(replace(still, motion="down"))
    for change in ({"motion": "left"}, {"size": "large"}, {"place": "top left"}, {"then": "down"}):
        assert not can_group(replace(still, **change))


def test_with_event_makes_a_group_or_two_legs():
    rng = random.Random(0)
    thing = Thing("star", "red", "plain", "small", "top", "down")
    made = [with_event(thing, rng) for _ in range(60)]
    assert {(t.then, t.count) for t in made} == {
        ("up", 1), ("left", 1), ("right", 1), ("", 2), ("", 3),
    }  # fmt: skip
    assert with_event(replace(thing, motion="bounce"), rng) == replace(thing, motion="bounce")


def test_a_shadow_darkens_the_ground_right_below():
    thing = Thing("circle", "red", "plain", "large", "centre", "still")
    plain, shaded = render(
        [Scene((thing,), "gray", shadows=shadows) for shadows in (False, True)], 1, 100, 100
    )[:, :, 0]
    taken = (plain - shaded).amax(0)
    assert taken.min() >= 0
    (x, y, width, height), *others = regions(plain, "gray")
    assert not others
    assert taken[y + height + 1, x + width // 2 + 4] > 0.2  # gray is 0.66 above black
    assert taken[: y + 3].max() < 0.02
    assert taken[y + height // 2, x + width // 2] == 0  # the thing lies above its shadow
    assert taken[y + height // 2, x - 2] == 0


def test_letters_stand_in_rows_on_the_background():
    thing = Thing("circle", "red", "plain", "small", "bottom right", "still")
    scenes = [Scene((thing,), "navy", kind, seed=3) for kind in ("plain", "lettered")]
    plain, lettered = render(scenes, 2, 200, 200)
    lit = (lettered - plain)[:, 0, :90] > 0.3
    assert torch.equal(lit[0], lit[2])
    assert 0.15 < lit[0].float().mean() < 0.5
    rows = lit[0].any(1)
    assert 0.1 < (~rows).float().mean() < 0.25  # the gaps between lines
    starts = torch.nonzero(rows[1:] & ~rows[:-1]).flatten()
    assert all(abs(gap - 18) <= 1 for gap in starts.diff().tolist())
    assert len(starts) >= 4
    torch.testing.assert_close(lettered[:, 0], lettered[:, 1])


def test_every_motion_keeps_the_centre_in_the_picture():
    pairs = [(p, m) for p in PLACES for m in MOTIONS if compatible(p, m)]
    scenes = [
        Scene((Thing("circle", "white", "plain", "small", place, motion),), seed=seed)
        for seed, (place, motion) in enumerate(pairs)
    ]
    size = 32
    for video in render(scenes, 9, size, size):
        assert (video[0] > 0).flatten(1).sum(1).min() > 0.5 * 3.1 * (0.08 * size) ** 2


def test_splits_are_disjoint_and_held_out_is_a_tenth():
    train, held = draw(300), draw(100, "held_out")
    assert not any(is_held_out(scene.things[0]) for scene in train)
    assert all(is_held_out(scene.things[0]) for scene in held)
    combinations = [
        Thing(shape, colour, "plain", "medium", place, motion)
        for shape in ("circle", "star")
        for colour in ("red", "blue", "white")
        for place in PLACES
        for motion in MOTIONS
    ]
    assert 0.05 < sum(map(is_held_out, combinations)) / len(combinations) < 0.15
    with pytest.raises(ValueError, match="split must be"):
        sample_scene(random.Random(0), "test")


def test_things_differ_in_colour_and_place():
    for scene in draw(200):
        assert 1 <= len(scene.things) <= 3
        assert len({thing.colour for thing in scene.things}) == len(scene.things)
        assert len({thing.place for thing in scene.things}) == len(scene.things)
        assert all(compatible(thing.place, thing.motion) for thing in scene.things)


def test_captions_name_what_matters():
    rng = random.Random(5)
    for scene in draw(200, seed=4):
        for text in (caption(scene, rng), canonical(scene)):
            low = text.lower()
            for index, thing in enumerate(scene.things):
                noun = f"{thing.colour} {thing.shape}"
                noun = noun if thing.texture == "plain" else f"{thing.texture} {noun}"
                assert (noun if thing.size == "medium" else f"{thing.size} {noun}") in low
                assert where(scene, index) in low
                assert any(phrase in low for phrase in MOTION_PHRASES[thing.motion])
                assert not thing.then or any(p in low for p in MOTION_PHRASES[thing.then])
                line = ("row of", "column of")[group_axis(thing.place) or 0]
                assert (line in low) or thing.count == 1
            assert any(p in low for p in SHADOW_PHRASES) == scene.shadows
            assert f"{scene.background} background" in low
            assert scene.background_kind == "plain" or scene.background_kind in low
            assert scene.camera == "static" or any(p in low for p in CAMERA_PHRASES[scene.camera])
            assert scene.light == "steady" or any(p in low for p in LIGHT_PHRASES[scene.light])
            assert text.endswith(".")


def test_canonical_phrasing():
    things = (
        Thing("circle", "red", "striped", "large", "left", "right"),
        Thing("ring", "orange", "plain", "medium", "top right", "arc left"),
    )
    scene = Scene(things, "navy", "starry", "zoom in", "fading")
    assert canonical(scene) == (
        "A large striped red circle on the left moves right, and an orange ring in the top right "
        "moves in an arc to the left on a starry navy background. The camera zooms in. "
        "The light fades."
    )


def test_canonical_phrasing_of_events():
    row = Thing("cross", "orange", "dotted", "small", "bottom", "up", count=3)
    star = Thing("star", "red", "plain", "medium", "top", "left", then="right")
    scene = Scene((row, star), "gray", related=True, shadows=True)
    assert canonical(scene) == (
        "A row of three small dotted orange crosses at the bottom moves up, and a red star above "
        "the orange crosses moves left, then moves right on a gray background. "
        "Everything casts a shadow."
    )


def test_training_scenes_have_events():
    scenes = draw(300)
    things = [thing for scene in scenes for thing in scene.things]
    for found in (
        [thing.then for thing in things],
        [thing.count > 1 for thing in things],
        [scene.related for scene in scenes],
        [scene.shadows for scene in scenes],
        [scene.background_kind == "lettered" for scene in scenes],
    ):
        assert 0.01 < sum(map(bool, found)) / len(found) < 0.25
    assert all(relation(*scene.things[:2]) for scene in scenes if scene.related)


def test_corpus_varies_and_repeats_by_seed():
    texts = corpus(100, 1)
    assert texts == corpus(100, 1)
    assert len(set(texts)) == 100


def test_held_out_prompts():
    scenes = held_out_prompts()
    assert len(scenes) == 64
    assert scenes == held_out_prompts()
    for scene in scenes:
        assert is_held_out(scene.things[0])
        assert len(scene.things) <= 2
        assert scene.background_kind == "plain"
        assert (scene.camera, scene.light) == ("static", "steady")
        assert all(thing.size in ("medium", "large") for thing in scene.things)
        assert all(thing.motion in ("still", *LINEAR_MOTIONS) for thing in scene.things)


def test_held_out_prompts_stay_the_same():
    """Results of earlier versions are compared on these scenes."""
    first, _, third, *_, last = held_out_prompts(64, seed=7)
    assert (canonical(first), first.seed) == (
        "A cyan square at the top moves down and to the right on a gray background.",
        442620898,
    )
    assert (canonical(third), third.seed) == (
        "A large dotted green triangle in the bottom left moves right, and a large striped blue "
        "star in the top left moves down and to the right on a navy background.",
        831698692,
    )
    assert (canonical(last), last.seed) == (
        "A striped white cross on the left moves down and to the right on a brown background.",
        867189016,
    )
    last = held_out_prompts(8, seed=11)[-1]
    assert (canonical(last), last.seed) == (
        "A large green cross in the top right moves left on a black background.",
        3269781182,
    )


def test_held_out_events():
    scenes = held_out_events()
    assert len(scenes) == 64
    assert scenes[:9] == held_out_events(9)
    assert scenes[:9] != held_out_events(9, seed=8)
    legs_count = sum(any(thing.then for thing in scene.things) for scene in scenes)
    group_count = sum(any(thing.count > 1 for thing in scene.things) for scene in scenes)
    related_count = sum(scene.related for scene in scenes)
    assert min(legs_count, group_count, related_count) >= 64 // 3
    for scene in scenes:
        assert is_held_out(scene.things[0])
        assert scene.related or any(thing.then or thing.count > 1 for thing in scene.things)
        assert not scene.related or relation(*scene.things)
        assert (scene.background_kind, scene.camera, scene.light) == ("plain", "static", "steady")
        assert not scene.shadows
        for thing in scene.things:
            assert thing.size in (("medium", "large") if thing.count == 1 else ("small", "medium"))
            assert thing.motion in ("still", *LINEAR_MOTIONS)


def test_things_of_held_out_events_do_not_hide_each_other():
    scenes = [scene for scene in held_out_events(24, seed=5) if len(scene.things) == 2]
    assert len(scenes) > 8
    for scene in scenes:
        video = render([scene], 3, 128, 128)[0]
        count = sum(thing.count for thing in scene.things)
        assert [len(regions(frame, scene.background)) for frame in video.unbind(1)] == [count] * 3


def test_groups_are_common_enough_to_be_learnt():
    scenes = draw(1500, seed=9)
    groups = [thing for scene in scenes for thing in scene.things if thing.count > 1]
    assert 0.07 < len(groups) / sum(len(scene.things) for scene in scenes) < 0.2
    assert all(can_group(thing) for thing in groups)
    assert not any(is_held_out(scene.things[0]) for scene in scenes)
