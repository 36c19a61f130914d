"""Held-out scenes whose prompts are easy to score: plain backgrounds, still or straight paths."""

from __future__ import annotations

import random

from tools.mini.scenes import BACKGROUNDS, LINEAR_MOTIONS, Scene, sample_things


def held_out_prompts(count: int = 64, seed: int = 7) -> list[Scene]:
    """Draw `count` scenes led by a held-out combination; the same seed gives the same scenes.

    One thing (60%) or two, medium or large, still or moving along one of the eight straight
    directions; static camera, steady light, plain background.
    """
    rng = random.Random(seed)
    scenes = []
    for _ in range(count):
        number = 1 if rng.random() < 0.6 else 2
        things = sample_things(
            rng, number, "held_out", ("still", *LINEAR_MOTIONS), ("medium", "large")
        )
        background = rng.choice(tuple(BACKGROUNDS))
        scenes.append(Scene(things, background=background, seed=rng.getrandbits(32)))
    return scenes
