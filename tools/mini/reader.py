"""Reads what a prompt claims out of a video, with OpenCV alone.

The reader shares nothing with the renderer and the training: it knows a prompt's words and what a
person would call red, left, up or striped (see `tools.mini.seeing`). Each thing of a caption claims
a colour, a texture, a count, where it starts and how it moves. A claim about a thing that is not
seen is false.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from tools.mini.seeing import COLOURS, see

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tools.mini.seeing import Sighting

    Point = tuple[float, float]
    Signs = tuple[int, int]

KINDS = ("colour", "place", "motion", "texture", "count", "order", "relation")
TEXTURES = ("striped", "checkered", "dotted")
COUNTS = {"two": 2, "three": 3}
MOVED = 0.15
"""Travel, as a share of the picture's axis, that counts as motion along that axis."""

EDGE = 1 / 6
"""A place is "left" where its centre is more than this share left of the middle, and so on."""

DIRECTIONS = {
    "stays still": (0, 0),
    "moves left": (-1, 0),
    "moves right": (1, 0),
    "moves up": (0, -1),
    "moves down": (0, 1),
    "moves up and to the left": (-1, -1),
    "moves up and to the right": (1, -1),
    "moves down and to the left": (-1, 1),
    "moves down and to the right": (1, 1),
}
RELATIONS = {
    "to the left of": (-1, 0),
    "to the right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}


_CLAUSE = re.compile(
    rf"an? ((row|column) of (?P<count>{'|'.join(COUNTS)}) )?((small|large) )?"
    rf"((?P<texture>{'|'.join(TEXTURES)}) )?(?P<colour>{'|'.join(COLOURS)}) \w+ "
    rf"((in|on|at) the (?P<place>[a-z ]+?)"
    rf"|(?P<relation>{'|'.join(RELATIONS)}) the (?P<other>{'|'.join(COLOURS)}) \w+) "
    rf"(?P<motion>{'|'.join(DIRECTIONS)})(, then (?P<then>{'|'.join(DIRECTIONS)}))?"
)


@dataclass(frozen=True)
class Claim:
    """What a caption says about one thing. Signs are along x and y.

    Attributes:
        colour: Its name.
        texture: "plain" or one of `TEXTURES`.
        count: How many there are.
        place: Where it starts, 0 for the middle third; None if a relation says it.
        relation: Colour of another thing and where this one starts as seen from it.
        motion: Where it goes, 0 for no travel; of two legs the first.
        then: Where it goes in the second half of the video; None for motions of one leg.
    """

    colour: str
    texture: str
    count: int
    place: Signs | None
    relation: tuple[str, Signs] | None
    motion: Signs
    then: Signs | None


def expected(prompt: str) -> list[Claim]:
    """Reads the things of a canonical caption with still, straight or two-leg motions.

    Raises:
        ValueError: If a clause cannot be read.
    """
    return [_claim(clause) for clause in prompt.lower().split(" on a ")[0].split(", and ")]


def _claim(clause: str) -> Claim:
    match = _CLAUSE.fullmatch(clause)
    if match is None:
        raise ValueError(f"expected a canonical caption with straight motions, got {clause!r}")
    place = relation = None
    if match["place"]:
        words = match["place"].split()
        place = (("right" in words) - ("left" in words), ("bottom" in words) - ("top" in words))
    else:
        relation = (match["other"], RELATIONS[match["relation"]])
    return Claim(
        colour=match["colour"],
        texture=match["texture"] or "plain",
        count=COUNTS.get(match["count"], 1),
        place=place,
        relation=relation,
        motion=DIRECTIONS[match["motion"]],
        then=DIRECTIONS[match["then"]] if match["then"] else None,
    )


def _signs(start: Point, end: Point, least: float) -> Signs:
    """Directions along x and y from one point to another, 0 where they are not `least` apart."""
    signs = [(b - a > least) - (a - b > least) for a, b in zip(start, end, strict=True)]
    return signs[0], signs[1]


def score(video: NDArray[np.uint8], prompt: str) -> dict[str, list[bool]]:
    """Checks a video against its prompt.

    Args:
        video: (F,H,W,3), RGB, uint8.
        prompt: Canonical caption with still, straight or two-leg motions.

    Returns:
        For each of `KINDS` the verdicts over the caption's things, none where nothing is claimed.
        Every thing claims a colour, a texture and a count, a place or a relation, and a motion or
        an order of motions. Place and motion of a group are those of its centre.
    """
    claims = expected(prompt)
    seen = {claim.colour: see(video, claim.colour) for claim in claims}
    verdicts: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for claim in claims:
        for kind, verdict in _verdicts(claim, seen).items():
            verdicts[kind].append(verdict)
    return verdicts


def _verdicts(claim: Claim, seen: dict[str, Sighting | None]) -> dict[str, bool]:
    """Whether each claim about one thing is true, given what is seen of every colour."""
    kinds = ["colour", "texture", "count"]
    kinds += ["relation" if claim.relation else "place", "order" if claim.then else "motion"]
    it = seen[claim.colour]
    if it is None:
        return dict.fromkeys(kinds, False)
    truths = {"colour": True, "texture": it.texture == claim.texture}
    truths["count"] = it.count == claim.count
    if claim.relation:
        other = seen.get(claim.relation[0])
        truths["relation"] = (
            other is not None and _signs(other.start, it.start, EDGE) == claim.relation[1]
        )
    else:
        truths["place"] = _signs((0.5, 0.5), it.start, EDGE) == claim.place
    if claim.then:
        legs = _signs(it.start, it.middle, MOVED), _signs(it.middle, it.end, MOVED)
        truths["order"] = legs == (claim.motion, claim.then)
    else:
        truths["motion"] = _signs(it.start, it.end, MOVED) == claim.motion
    return truths


def summary(verdicts: list[dict[str, list[bool]]]) -> dict[str, float | None]:
    """Shares of true claims over many videos.

    Args:
        verdicts: What `score` returns for each video.

    Returns:
        The share for each of `KINDS`, over `all` claims, and of the `videos` with every claim
        true; None where nothing is claimed.
    """
    shares = {kind: _share([v for one in verdicts for v in one[kind]]) for kind in KINDS}
    each = [[v for kind in KINDS for v in one[kind]] for one in verdicts]
    shares["all"] = _share([v for one in each for v in one])
    shares["videos"] = _share([all(one) for one in each])
    return shares


def _share(values: list[bool]) -> float | None:
    return mean(values) if values else None
