from dataclasses import replace

import cv2
import numpy as np
import pytest

from tools.mini import reader, scenes, seeing
from tools.mini.captions import canonical
from tools.mini.prompts import held_out_events, held_out_prompts
from tools.mini.scenes import Scene, Thing

PLAIN = held_out_prompts(20, seed=11)
EVENTS = held_out_events(21, seed=12)
ALWAYS = {"colour", "place", "motion", "texture", "count"}

STRIPED = Thing("square", "red", "striped", "large", "left", "right", then="up")
GROUP = Thing("circle", "cyan", "plain", "small", "right", "still", count=2)
SCENE = Scene((STRIPED, GROUP), "navy", related=True, seed=1)
SENTENCE = (
    "A large striped red square on the left moves right, then moves up, and a column of two small "
    "cyan circles to the right of the red square stays still on a navy background."
)


def film(scene, size=96):
    video = scenes.render([scene], 9, size, size)[0]
    return video.add(1).mul(127.5).round().byte().permute(1, 2, 3, 0).numpy()


@pytest.fixture(scope="module")
def films():
    return [film(scene) for scene in PLAIN + EVENTS]


@pytest.fixture(scope="module")
def larger():
    return [film(scene, 128) for scene in PLAIN[:12] + EVENTS[:12]]


def shares(videos, prompts):
    pairs = zip(videos, prompts, strict=True)
    return reader.summary([reader.score(video, prompt) for video, prompt in pairs])


def assert_read(found, least):
    assert set(found) == {*reader.KINDS, "all", "videos"}
    assert all(share >= least for share in found.values() if share is not None), found
    assert all(found[kind] is not None for kind in ALWAYS)


def test_rendered_scenes_are_read_back(films):
    """At 96 pixels, textures of medium and large things included."""
    count = len(PLAIN)
    found = shares(films[:count], map(canonical, PLAIN))
    assert_read(found, 0.98)
    assert found["order"] is found["relation"] is None
    found = shares(films[count:], map(canonical, EVENTS))
    assert_read(found, 0.98)
    assert None not in found.values()


def test_larger_pictures_are_read_back(larger):
    found = shares(larger, map(canonical, PLAIN[:12] + EVENTS[:12]))
    assert_read(found, 0.98)
    assert None not in found.values()


def test_blurred_pictures_are_read_back(larger):
    """By more than the VAE of the bundled model does."""
    blurred = [np.stack([cv2.GaussianBlur(f, (0, 0), 1.2) for f in video]) for video in larger]
    assert_read(shares(blurred, map(canonical, PLAIN[:12] + EVENTS[:12])), 0.95)


def test_other_prompts_are_not(films):
    prompts = [canonical(s) for s in PLAIN + EVENTS]
    found = shares(films, prompts[1:] + prompts[:1])
    assert found["colour"] < 0.4
    assert found["texture"] < 0.3
    assert found["count"] < 0.35
    assert all(found[kind] < 0.15 for kind in ("place", "motion", "order", "relation", "videos"))


def test_a_blank_video_makes_no_claim_true():
    for light in (0, 84, 255):
        blank = np.full((5, 64, 64, 3), light, dtype=np.uint8)
        prompts = [canonical(s) for s in PLAIN + EVENTS if "white" not in canonical(s)]
        found = shares([blank] * len(prompts), prompts)
        assert all(share == 0 for share in found.values()), found


def test_a_gray_picture_shows_no_colour():
    gray = np.full((5, 64, 64, 3), 84, dtype=np.uint8)
    assert all(seeing.see(gray, colour) is None for colour in seeing.COLOURS)


@pytest.mark.parametrize(
    ("told", "instead", "wrong"),
    [
        ("cyan circles", "green circles", {"colour": 1, "texture": 1, "count": 1, "relation": 1}),
        ("striped red", "dotted red", {"texture": 1}),
        ("striped red", "checkered red", {"texture": 1}),
        ("striped red", "red", {"texture": 1}),
        ("small cyan", "striped cyan", {"texture": 1}),
        ("of two", "of three", {"count": 1}),
        ("a column of two small cyan circles", "a cyan circle", {"count": 1}),
        ("moves right, then moves up", "moves up, then moves right", {"order": 1}),
        ("moves right, then moves up", "moves right, then moves left", {"order": 1}),
        ("moves right, then moves up", "moves right, then moves down", {"order": 1}),
        ("on the left", "at the top", {"place": 1}),
        ("to the right of", "to the left of", {"relation": 1}),
        ("to the right of", "above", {"relation": 1}),
        ("stays still", "moves left", {"motion": 1}),
    ],
)
def test_a_false_word_makes_its_claim_false(told, instead, wrong):
    assert canonical(SCENE) == SENTENCE
    assert told in SENTENCE
    video = film(SCENE)
    truth = reader.score(video, SENTENCE)
    assert all(all(verdicts) for verdicts in truth.values())
    verdicts = reader.score(video, SENTENCE.replace(told, instead))
    if "colour" in wrong:
        wrong = wrong | {"motion": 1}
    found = {kind: values.count(False) for kind, values in verdicts.items() if False in values}
    assert found == wrong


def test_a_relation_to_what_is_not_there_is_false():
    prompt = SENTENCE.replace("of the red square", "of the blue square")
    assert reader.score(film(SCENE), prompt)["relation"] == [False]


def test_frames_vote_on_the_texture():
    thing = Thing("square", "red", "striped", "large", "centre", "still")
    striped, plain = film(Scene((thing,))), film(Scene((replace(thing, texture="plain"),)))
    mixed = striped.copy()
    mixed[:3] = plain[:3]
    assert seeing.see(mixed, "red").texture == "striped"
    mixed[:5] = plain[:5]
    assert seeing.see(mixed, "red").texture == "plain"


def test_dark_dots_are_holes_of_a_white_thing():
    frame = np.full((128, 128, 3), (10, 10, 50), dtype=np.uint8)
    cv2.circle(frame, (64, 64), 40, (245, 245, 245), -1)
    for x in range(40, 90, 24):
        for y in range(40, 90, 24):
            cv2.circle(frame, (x, y), 6, (60, 60, 110), -1)
    video = np.stack([frame] * 3)
    prompt = "A dotted white circle in the centre stays still on a navy background."
    assert reader.score(video, prompt)["texture"] == [True]


def test_a_thing_may_be_missing_in_a_few_frames():
    video = film(SCENE)
    whole = seeing.see(video, "red")
    video[2:4] = 0
    assert seeing.see(video, "red") == whole
    video[4:6] = 0
    assert seeing.see(video, "red") is None


def test_small_specks_are_not_counted():
    mask = np.zeros((60, 60), dtype=np.uint8)
    mask[5:25, 5:25] = mask[30:50, 30:50] = 1
    mask[52:56, 2:6] = 1
    assert [int(region.sum()) for region in seeing.regions(mask)] == [400, 400]


def test_every_held_out_prompt_can_be_parsed():
    for scene in held_out_prompts(200, seed=3) + held_out_events(50, seed=3):
        claims = reader.expected(canonical(scene))
        for index, (claim, thing) in enumerate(zip(claims, scene.things, strict=True)):
            assert (claim.colour, claim.texture) == (thing.colour, thing.texture)
            assert claim.count == thing.count
            assert claim.motion == scenes.TRAVEL.get(thing.motion, (0, 0))
            assert claim.then == (scenes.TRAVEL[thing.then] if thing.then else None)
            if scene.related and index == 1:
                signs = scenes.relation(*scene.things)
                assert (claim.place, claim.relation) == (None, (scene.things[0].colour, signs))
            else:
                place = [int(np.sign(p - 0.5)) for p in scenes.PLACES[thing.place]]
                assert (claim.place, claim.relation) == (tuple(place), None)


def test_other_sentences_are_ignored():
    around = replace(
        SCENE, background_kind="starry", camera="zoom in", light="fading", shadows=True
    )
    assert canonical(around).count(".") == 4
    assert reader.expected(canonical(around)) == reader.expected(SENTENCE)


@pytest.mark.parametrize(
    "caption",
    [
        "Something red floats about.",
        "A red star on the left moves in a circle on a black background.",
        "A red star on the left moves in an arc to the right on a black background.",
        "A red star on the left moves right, then bounces up and down on a black background.",
        "A red star on the left moves right, and a ball rolls on a black background.",
    ],
)
def test_other_captions_are_refused(caption):
    with pytest.raises(ValueError, match="canonical caption"):
        reader.expected(caption)


def test_summary_weighs_claims_and_videos():
    none = dict.fromkeys(reader.KINDS, [])
    found = reader.summary(
        [
            none | {"colour": [True, True], "place": [True, False]},
            none | {"colour": [True], "order": [True]},
            none | {"colour": [False]},
        ]
    )
    assert found == dict.fromkeys(reader.KINDS) | {
        "colour": 0.75,
        "place": 0.5,
        "order": 1,
        "all": pytest.approx(5 / 7),
        "videos": pytest.approx(1 / 3),
    }
    assert set(reader.summary([]).values()) == {None}
