"""Captions for scenes: a varied grammar for training and one fixed phrasing for scoring."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tools.mini.scenes import group_axis, relation, sample_scene

if TYPE_CHECKING:
    from tools.mini.scenes import Scene, Thing

PLACE_PHRASES: dict[str, str] = {
    "centre": "in the centre",
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "top left": "in the top left",
    "top right": "in the top right",
    "bottom left": "in the bottom left",
    "bottom right": "in the bottom right",
}
# The first phrase of each motion, camera and light is the canonical one.
MOTION_PHRASES: dict[str, tuple[str, ...]] = {
    "still": ("stays still", "does not move", "rests", "stays in place"),
    "left": ("moves left", "moves to the left", "slides left", "drifts to the left"),
    "right": ("moves right", "moves to the right", "slides right", "drifts to the right"),
    "up": ("moves up", "moves upwards", "rises", "drifts up"),
    "down": ("moves down", "moves downwards", "sinks", "drifts down"),
    "up-left": ("moves up and to the left", "moves diagonally up and left", "drifts up and left"),
    "up-right": (
        "moves up and to the right",
        "moves diagonally up and right",
        "drifts up and right",
    ),
    "down-left": (
        "moves down and to the left",
        "moves diagonally down and left",
        "drifts down and left",
    ),
    "down-right": (
        "moves down and to the right",
        "moves diagonally down and right",
        "drifts down and right",
    ),
    "circle": ("moves in a circle", "circles around", "follows a circular path"),
    "arc left": ("moves in an arc to the left", "curves to the left", "swings left in an arc"),
    "arc right": ("moves in an arc to the right", "curves to the right", "swings right in an arc"),
    "bounce": ("bounces up and down", "bounces", "hops up and down"),
}
CAMERA_PHRASES: dict[str, tuple[str, ...]] = {
    "pan left": ("the camera pans left", "the view pans to the left"),
    "pan right": ("the camera pans right", "the view pans to the right"),
    "zoom in": ("the camera zooms in", "the view slowly zooms in"),
    "zoom out": ("the camera zooms out", "the view slowly zooms out"),
}
LIGHT_PHRASES: dict[str, tuple[str, ...]] = {
    "brightening": ("the light brightens", "the scene grows brighter"),
    "fading": ("the light fades", "the scene grows darker"),
}
RELATION_PHRASES: dict[tuple[int, int], str] = {
    (-1, 0): "to the left of",
    (1, 0): "to the right of",
    (0, -1): "above",
    (0, 1): "below",
}
COUNT_WORDS = {2: "two", 3: "three"}
SHADOW_PHRASES = ("everything casts a shadow", "there are soft shadows")
CANONICAL_SHARE = 0.2  # of training captions


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith("s") else "s")


def _noun(thing: Thing) -> str:
    """The thing with its article, such as "an orange ring" or "a row of two red stars"."""
    words = [] if thing.size == "medium" else [thing.size]
    words += [] if thing.texture == "plain" else [thing.texture]
    name = " ".join([*words, thing.colour, thing.shape])
    if thing.count > 1:
        line = ("row", "column")[group_axis(thing.place) or 0]
        return f"a {line} of {COUNT_WORDS[thing.count]} {_plural(name)}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _place(scene: Scene, index: int) -> str:
    """Where a thing starts: in the picture, or as seen from the scene's first thing."""
    thing, first = scene.things[index], scene.things[0]
    signs = relation(first, thing) if scene.related and index == 1 else None
    if signs is None:
        return PLACE_PHRASES[thing.place]
    shape = _plural(first.shape) if first.count > 1 else first.shape
    return f"{RELATION_PHRASES[signs]} the {first.colour} {shape}"


def _ground(scene: Scene) -> str:
    """The background, such as "a navy background" or "a starry black background"."""
    kind = "" if scene.background_kind == "plain" else scene.background_kind + " "
    return f"a {kind}{scene.background} background"


def canonical(scene: Scene) -> str:
    """The one fixed phrasing of a scene, made to be read back by a program.

    In the grammar below, [ ] may be absent and { } repeats::

        caption    = clause {", and " clause} " on a " [KIND " "] GROUND " background."
                     [" The camera " CAMERA "."] [" The light " LIGHT "."]
                     [" Everything casts a shadow."]
        clause     = NOUN " " (PLACE | RELATION) " " MOTION [", then " MOTION]
        NOUN       = article " " [SIZE " "] [TEXTURE " "] COLOUR " " SHAPE
                   | "a " LINE " of " COUNT " " [SIZE " "] [TEXTURE " "] COLOUR " " SHAPES
        article    = "a" or "an" ("an" before "orange" only); capital in the first clause only
        LINE       = "row" | "column"
        COUNT      = "two" | "three"
        SHAPES     = SHAPE "s", but "crosses"
        SIZE       = "small" | "large"                      (absent: medium)
        TEXTURE    = "striped" | "checkered" | "dotted"     (absent: plain)
        COLOUR     = "red" | "orange" | "yellow" | "green" | "cyan" | "blue" | "purple" | "white"
        SHAPE      = "circle" | "square" | "triangle" | "star" | "ring" | "cross"
        PLACE      = "in the centre" | "on the left" | "on the right" | "at the top"
                   | "at the bottom" | "in the top left" | "in the top right"
                   | "in the bottom left" | "in the bottom right"
        RELATION   = DIRECTION " the " COLOUR " " (SHAPE | SHAPES)
        DIRECTION  = "to the left of" | "to the right of" | "above" | "below"
                     (the second clause only, about the first clause's thing)
        MOTION     = "stays still" | "moves left" | "moves right" | "moves up" | "moves down"
                   | "moves up and to the left" | "moves up and to the right"
                   | "moves down and to the left" | "moves down and to the right"
                   | "moves in a circle" | "moves in an arc to the left"
                   | "moves in an arc to the right" | "bounces up and down"
        KIND       = "gradient" | "checkered" | "starry" | "lettered"    (absent: plain)
        GROUND     = "black" | "gray" | "navy" | "brown"
        CAMERA     = "pans left" | "pans right" | "zooms in" | "zooms out"  (absent: static)
        LIGHT      = "brightens" | "fades"                  (absent: steady)

    Clauses follow the drawing order. No motion contains ", and ", so that splits the clauses.
    """
    clauses = []
    for index, thing in enumerate(scene.things):
        then = f", then {MOTION_PHRASES[thing.then][0]}" if thing.then else ""
        motion = MOTION_PHRASES[thing.motion][0] + then
        clauses.append(f"{_noun(thing)} {_place(scene, index)} {motion}")
    parts = [_sentence(f"{', and '.join(clauses)} on {_ground(scene)}")]
    if scene.camera != "static":
        parts.append(_sentence(CAMERA_PHRASES[scene.camera][0]))
    if scene.light != "steady":
        parts.append(_sentence(LIGHT_PHRASES[scene.light][0]))
    if scene.shadows:
        parts.append(_sentence(SHADOW_PHRASES[0]))
    return " ".join(parts)


def _clause(scene: Scene, index: int, rng: random.Random) -> str:
    """One thing, its start and its motion, in one of several wordings."""
    thing = scene.things[index]
    noun, place = _noun(thing), _place(scene, index)
    motion = rng.choice(MOTION_PHRASES[thing.motion])
    if thing.then:
        motion += f"{rng.choice((', then', ' and then'))} {rng.choice(MOTION_PHRASES[thing.then])}"
    if thing.motion == "still":
        wordings = [f"{noun} {motion} {place}", f"{noun} {place} {motion}"]
    else:
        wordings = [
            f"{noun} starts {place} and {motion}",
            f"{noun} {place} {motion}",
            f"{noun} begins {place}, then {motion}",
            f"starting {place}, {noun} {motion}",
        ]
    return rng.choice(wordings)


def caption(scene: Scene, rng: random.Random) -> str:
    """Describe a scene in one of many wordings; a fifth of them are `canonical`."""
    if rng.random() < CANONICAL_SHARE:
        return canonical(scene)
    clauses = [_clause(scene, index, rng) for index in range(len(scene.things))]
    ground = _ground(scene)
    style = rng.choice(("while", "and", "sentences")) if len(clauses) > 1 else "sentences"
    if style == "sentences":
        sentences = clauses
    elif style == "while":
        sentences = [f"{clauses[0]} while {clauses[1]}", *clauses[2:]]
    else:
        sentences = [", and ".join(clauses)]
    where = rng.choice(("over", "lead", "last"))
    if where == "over":
        sentences[0] = f"{sentences[0]} {rng.choice(('over', 'on', 'against'))} {ground}"
    elif where == "lead":
        sentences[0] = f"{rng.choice(('on', 'over'))} {ground}, {sentences[0]}"
    else:
        sentences.append(f"the scene has {ground}")
    if scene.camera != "static":
        sentences.append(rng.choice(CAMERA_PHRASES[scene.camera]))
    if scene.light != "steady":
        sentences.append(rng.choice(LIGHT_PHRASES[scene.light]))
    if scene.shadows:
        sentences.append(rng.choice(SHADOW_PHRASES))
    return " ".join(_sentence(sentence) for sentence in sentences)


def corpus(n: int, seed: int) -> list[str]:
    """Captions of `n` training scenes, to fit a tokenizer on."""
    rng = random.Random(seed)
    return [caption(sample_scene(rng), rng) for _ in range(n)]
