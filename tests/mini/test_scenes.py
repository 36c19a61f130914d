import random

import pytest
import torch

from tools.mini.captions import (
    CAMERA_PHRASES,
    LIGHT_PHRASES,
    MOTION_PHRASES,
    PLACE_PHRASES,
    canonical,
    caption,
    corpus,
)
from tools.mini.prompts import held_out_prompts
from tools.mini.scenes import (
    LINEAR_MOTIONS,
    MOTIONS,
    PLACES,
    TRAVEL,
    Scene,
    Thing,
    compatible,
    is_held_out,
    render,
    sample_scene,
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
            for thing in scene.things:
                noun = f"{thing.colour} {thing.shape}"
                noun = noun if thing.texture == "plain" else f"{thing.texture} {noun}"
                assert (noun if thing.size == "medium" else f"{thing.size} {noun}") in low
                assert PLACE_PHRASES[thing.place] in low
                assert any(phrase in low for phrase in MOTION_PHRASES[thing.motion])
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
