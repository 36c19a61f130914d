"""Held-out scenes whose prompts are easy to score: plain backgrounds, still or straight paths."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations

from tools.mini.scenes import (
    BACKGROUNDS,
    GROUP_PITCH,
    LINEAR_MOTIONS,
    MARGIN,
    PLACES,
    SIZES,
    TRAVEL,
    Scene,
    Thing,
    group_axis,
    relation,
    sample_things,
    with_event,
)

MOTIONS = ("still", *LINEAR_MOTIONS)
REACH = 1.1  # of a shape from its centre, in radii
ROOM = 0.04  # between things, for what the seed varies (fraction of the axis)


def held_out_prompts(count: int = 64, seed: int = 7) -> list[Scene]:
    """Draw `count` scenes led by a held-out combination; the same seed gives the same scenes.

    One thing (60%) or two, medium or large, still or moving along one of the eight straight
    directions; static camera, steady light, plain background.
    """
    rng = random.Random(seed)
    scenes = []
    for _ in range(count):
        number = 1 if rng.random() < 0.6 else 2
        things = sample_things(rng, number, "held_out", MOTIONS, ("medium", "large"))
        background = rng.choice(tuple(BACKGROUNDS))
        scenes.append(Scene(things, background=background, seed=rng.getrandbits(32)))
    return scenes


def held_out_events(count: int = 64, seed: int = 7) -> list[Scene]:
    """Draw `count` scenes with a group, a motion of two legs or a relation; repeats by seed.

    Each third of the scenes has one of the three for sure, and maybe others. A scene is led by a
    held-out combination and has one thing or two (always two for a relation); single things are
    medium or large, groups of small or medium things; static camera, steady light, plain
    background, no shadows. No thing hides another at the start, halfway or at the end.
    """
    rng = random.Random(seed)
    scenes: list[Scene] = []
    while len(scenes) < count:
        wanted = ("group", "legs", "relation")[len(scenes) % 3]
        number = 2 if wanted == "relation" or rng.random() < 0.4 else 1
        drawn = sample_things(rng, number, "held_out", MOTIONS, ("medium", "large"))
        things = tuple(_eventful(thing, rng) if rng.random() < 0.5 else thing for thing in drawn)
        near = number == 2 and relation(*things) is not None
        background = rng.choice(tuple(BACKGROUNDS))
        scene = Scene(
            things,
            background,
            related=near and (wanted == "relation" or rng.random() < 0.5),
            seed=rng.getrandbits(32),
        )
        if wanted in _events(scene) and _apart(things):
            scenes.append(scene)
    return scenes


def _eventful(thing: Thing, rng: random.Random) -> Thing:
    """The thing with a second motion, or as a group, which is never large."""
    made = with_event(replace(thing, size="medium"), rng)
    return replace(made, size=rng.choice(("small", "medium")) if made.count > 1 else thing.size)


def _events(scene: Scene) -> set[str]:
    """Which of "group", "legs" and "relation" a scene has."""
    found = {"relation"} if scene.related else set()
    found |= {"legs" for thing in scene.things if thing.then}
    return found | {"group" for thing in scene.things if thing.count > 1}


def _apart(things: tuple[Thing, ...]) -> bool:
    """Whether no two things meet at the start, halfway or at the end."""
    for one, other in combinations(things, 2):
        for time in (0.0, 0.5, 1.0):
            (here, size), (there, room) = _box(one, time), _box(other, time)
            if all(abs(here[a] - there[a]) < size[a] + room[a] + ROOM for a in (0, 1)):
                return False
    return True


def _box(thing: Thing, time: float) -> tuple[list[float], list[float]]:
    """About where a thing is in a square picture: its centre and half its extent along x and y."""
    legs = ((thing.motion, min(1, 2 * time)), (thing.then, max(0, 2 * time - 1)))
    centre = list(PLACES[thing.place])
    for motion, share in legs if thing.then else ((thing.motion, time),):
        for axis, sign in enumerate(TRAVEL.get(motion, (0, 0))):
            end = min(max(centre[axis] + 0.44 * sign, MARGIN), 1 - MARGIN)
            centre[axis] += share * (end - centre[axis]) if sign else 0
    half = [REACH * SIZES[thing.size]] * 2
    half[group_axis(thing.place) or 0] += (thing.count - 1) / 2 * GROUP_PITCH * SIZES[thing.size]
    return centre, half
