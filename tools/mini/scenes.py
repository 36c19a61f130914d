"""Procedural scenes for training: a vocabulary, a sampler and a batched renderer.

A scene is one to three coloured things, or groups of equal things, that move over a quiet
background. `sample_scene` draws a scene, `render` turns many into video. Positions are fractions of
the picture's width and height, x to the right and y down; lengths (radius, texture) are fractions
of its short side, so nothing is stretched. Time runs from 0 to 1 over the clip, whatever the number
of frames.
"""

from __future__ import annotations

import colorsys
import hashlib
import math
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from tools.mini.shapes import SHAPE_FIELDS, TEXTURE_FIELDS, letters, stars, wave

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.93, 0.12, 0.12),
    "orange": (1.0, 0.5, 0.04),
    "yellow": (1.0, 0.9, 0.1),
    "green": (0.12, 0.76, 0.2),
    "cyan": (0.1, 0.86, 0.9),
    "blue": (0.16, 0.32, 1.0),
    "purple": (0.64, 0.2, 0.88),
    "white": (0.96, 0.96, 0.96),
}
BACKGROUNDS: dict[str, tuple[float, float, float]] = {
    "black": (0.03, 0.03, 0.03),
    "gray": (0.33, 0.33, 0.33),
    "navy": (0.04, 0.06, 0.2),
    "brown": (0.22, 0.13, 0.07),
}
SIZES: dict[str, float] = {"small": 0.09, "medium": 0.13, "large": 0.18}
PLACES: dict[str, tuple[float, float]] = {
    "centre": (0.5, 0.5),
    "left": (0.22, 0.5),
    "right": (0.78, 0.5),
    "top": (0.5, 0.22),
    "bottom": (0.5, 0.78),
    "top left": (0.22, 0.22),
    "top right": (0.78, 0.22),
    "bottom left": (0.22, 0.78),
    "bottom right": (0.78, 0.78),
}
# The sign of the travel along x and y over the clip.
TRAVEL: dict[str, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
    "up-left": (-1, -1),
    "up-right": (1, -1),
    "down-left": (-1, 1),
    "down-right": (1, 1),
    "arc left": (-1, 0),
    "arc right": (1, 0),
    "bounce": (0, -1),
}
SHAPES = tuple(SHAPE_FIELDS)
TEXTURES = ("plain", *TEXTURE_FIELDS)
LINEAR_MOTIONS = tuple(TRAVEL)[:8]
AXIS_MOTIONS = LINEAR_MOTIONS[:4]  # these can be one of two legs
MOTIONS = ("still", *LINEAR_MOTIONS, "circle", "arc left", "arc right", "bounce")
BACKGROUND_KINDS = ("plain", "gradient", "checkered", "starry", "lettered")
BACKGROUND_SHARES = (30, 20, 20, 20, 10)  # of training scenes, in percent
CAMERAS: dict[str, tuple[float, float]] = {  # final shift of the view (widths), final zoom
    "static": (0.0, 1.0),
    "pan left": (-0.12, 1.0),
    "pan right": (0.12, 1.0),
    "zoom in": (0.0, 1.28),
    "zoom out": (0.0, 0.76),
}
LIGHTS: dict[str, tuple[float, float]] = {  # gain at the start and at the end
    "steady": (1.0, 1.0),
    "brightening": (0.5, 1.0),
    "fading": (1.0, 0.5),
}
MARGIN = 0.12  # a centre never comes closer to the border (fraction of the axis), camera aside
GROUP_PITCH = 2.5  # from centre to centre of a group's things, in radii
SHADOW_SHIFT = 0.35  # of a shadow, to the right and down, in radii
SHADOW_DEPTH = 0.55  # share of the light that a shadow takes
SECOND_TONE = 0.5  # brightness of a texture's darker tone
GROUP_SHARE = 0.12  # of training things that become a group
EVENT_SHARE = 0.3  # of the others that move twice or become a group, where they can
CHUNK_PIXELS = 2**26  # pixels of video rendered at once: about 4 GB of intermediates


@dataclass(frozen=True)
class Thing:
    """One moving object, or a row of equal ones; words are those of the vocabulary above.

    Attributes:
        then: Second motion, made in the second half of the clip; empty for none.
        count: Number of equal things, side by side along the group's axis (see `group_axis`).
    """

    shape: str
    colour: str
    texture: str
    size: str
    place: str
    motion: str
    then: str = ""
    count: int = 1


@dataclass(frozen=True)
class Scene:
    """What a clip shows.

    Attributes:
        things: Drawn in this order.
        related: Whether captions tell the second thing's place relative to the first thing.
        shadows: Whether things cast a shadow on the background.
        seed: Fixes all that no caption names.
    """

    things: tuple[Thing, ...]
    background: str = "black"
    background_kind: str = "plain"
    camera: str = "static"
    light: str = "steady"
    related: bool = False
    shadows: bool = False
    seed: int = 0


def is_held_out(thing: Thing) -> bool:
    """Whether a scene led by `thing` belongs to the held-out tenth of all combinations."""
    key = "|".join((thing.colour, thing.shape, thing.place, thing.motion))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 10 == 0


def compatible(place: str, motion: str) -> bool:
    """Whether a thing that starts at `place` has room for `motion`."""
    travel = TRAVEL.get(motion, (0, 0))
    return all((p - 0.5) * v <= 0 for p, v in zip(PLACES[place], travel, strict=True))


def legs(place: str, motion: str) -> list[str]:
    """Second motions that a thing can make after `motion`: along the other axis, or back."""
    if motion not in AXIS_MOTIONS:
        return []
    first = TRAVEL[motion]
    back = (-first[0], -first[1])
    return [
        name
        for name in AXIS_MOTIONS
        if TRAVEL[name] == back
        or (
            TRAVEL[name][0] * first[0] + TRAVEL[name][1] * first[1] == 0 and compatible(place, name)
        )
    ]


def group_axis(place: str) -> int | None:
    """Axis, 0 for x and 1 for y, along which a group stands at a place; None where none fits."""
    middle = [p == 0.5 for p in PLACES[place]]
    return middle.index(True) if any(middle) else None


def can_group(thing: Thing) -> bool:
    """Whether the picture has room for a group in place of `thing`."""
    axis = group_axis(thing.place)
    straight = thing.motion == "still" or thing.motion in LINEAR_MOTIONS
    return (
        axis is not None
        and straight
        and not thing.then
        and thing.size != "large"
        and TRAVEL.get(thing.motion, (0, 0))[axis] == 0
    )


def relation(first: Thing, second: Thing) -> tuple[int, int] | None:
    """Where `second` starts as seen from `first`, as signs along x and y.

    None unless the two places differ along exactly one axis.
    """
    here, there = PLACES[first.place], PLACES[second.place]
    signs = [(b > a) - (b < a) for a, b in zip(here, there, strict=True)]
    return (signs[0], signs[1]) if signs.count(0) == 1 else None


def with_event(thing: Thing, rng: random.Random) -> Thing:
    """The thing with a second motion, or as a group; unchanged where neither is possible."""
    choices = [replace(thing, then=name) for name in legs(thing.place, thing.motion)]
    if can_group(thing):
        groups = [replace(thing, count=count) for count in (2, 3)]
        choices = choices if choices and rng.random() < 0.5 else groups
    return rng.choice(choices) if choices else thing


def grouped(thing: Thing, rng: random.Random) -> Thing:
    """Two or three of the thing, at a place and with a motion that leave room for them."""
    place = rng.choice([name for name in PLACES if group_axis(name) is not None])
    size = "medium" if thing.size == "large" else thing.size
    moved = replace(thing, place=place, size=size, then="", count=rng.choice((2, 3)))
    motions = [name for name in ("still", *AXIS_MOTIONS) if compatible(place, name)]
    choices = [replace(moved, motion=name) for name in motions]
    return rng.choice([choice for choice in choices if can_group(choice)])


def _with_events(things: tuple[Thing, ...], rng: random.Random) -> tuple[Thing, ...]:
    """Things of a training scene, some of them made groups or sent on two legs."""
    made: list[Thing] = []
    for index, thing in enumerate(things):
        group = grouped(thing, rng) if rng.random() < GROUP_SHARE else thing
        taken = {other.place for other in (*made, *things[index + 1 :])}
        if group.place not in taken and is_held_out(group) == is_held_out(thing):
            thing = group
        if thing.count == 1 and rng.random() < EVENT_SHARE:
            thing = with_event(thing, rng)
        made.append(thing)
    return tuple(made)


def sample_thing(
    rng: random.Random,
    motions: Sequence[str] = MOTIONS,
    sizes: Sequence[str] = tuple(SIZES),
) -> Thing:
    """Draw one thing with a start place that suits its motion."""
    motion = rng.choice(motions)
    return Thing(
        shape=rng.choice(SHAPES),
        colour=rng.choice(tuple(COLOURS)),
        texture="plain" if rng.random() < 0.5 else rng.choice(TEXTURES[1:]),
        size=rng.choice(sizes),
        place=rng.choice([place for place in PLACES if compatible(place, motion)]),
        motion=motion,
    )


def sample_things(
    rng: random.Random,
    count: int,
    split: str,
    motions: Sequence[str] = MOTIONS,
    sizes: Sequence[str] = tuple(SIZES),
) -> tuple[Thing, ...]:
    """Draw `count` things of distinct colours and places, the first of them from `split`.

    Raises:
        ValueError: `split` is neither "train" nor "held_out".
    """
    if split not in ("train", "held_out"):
        raise ValueError(f'split must be "train" or "held_out", got {split!r}')
    things: list[Thing] = []
    while len(things) < count:
        thing = sample_thing(rng, motions, sizes)
        if not things and is_held_out(thing) != (split == "held_out"):
            continue
        if all(thing.colour != other.colour and thing.place != other.place for other in things):
            things.append(thing)
    return tuple(things)


def sample_scene(rng: random.Random, split: str = "train") -> Scene:
    """Draw a scene; its first thing comes from `split`, "train" or "held_out"."""
    count = rng.choices((1, 2, 3), (45, 43, 12))[0]
    things = _with_events(sample_things(rng, count, split), rng)
    near = count > 1 and relation(*things[:2]) is not None
    return Scene(
        things=things,
        background=rng.choice(tuple(BACKGROUNDS)),
        background_kind=rng.choices(BACKGROUND_KINDS, BACKGROUND_SHARES)[0],
        camera="static" if rng.random() < 0.7 else rng.choice(tuple(CAMERAS)[1:]),
        light="steady" if rng.random() < 0.8 else rng.choice(tuple(LIGHTS)[1:]),
        related=near and rng.random() < 0.4,
        shadows=rng.random() < 0.15,
        seed=rng.getrandbits(32),
    )


NUMBERS = (
    "x", "y", "dx", "dy", "bow", "hop", "orbit", "angle", "spin", "radius", "red", "green", "blue",
    "two legs", "second dx", "second dy",
)  # fmt: skip


def _thing_numbers(thing: Thing, rng: random.Random) -> list[float]:
    """Pack a thing as `NUMBERS` names."""
    start = [p + rng.uniform(-0.03, 0.03) for p in PLACES[thing.place]]
    travel = [0.0, 0.0]
    if thing.motion in TRAVEL and thing.motion != "bounce":
        for axis, sign in enumerate(TRAVEL[thing.motion]):
            end = start[axis] + sign * rng.uniform(0.38, 0.5)
            travel[axis] = sign * abs(min(max(end, MARGIN), 1 - MARGIN) - start[axis])
    second = [0.0, 0.0]
    if thing.then:
        for axis, sign in enumerate(TRAVEL[thing.then]):
            end = start[axis] + sign * rng.uniform(0.38, 0.5)
            room = sign * abs(min(max(end, MARGIN), 1 - MARGIN) - start[axis])
            second[axis] = -travel[axis] if sign and travel[axis] else room
    bow = rng.uniform(0.2, 0.26) * (1 if start[1] < 0.4 else -1)  # towards the free side
    angle = math.atan2(start[1] - 0.5, start[0] - 0.5)  # a circular path bends to the middle
    hue, saturation, value = colorsys.rgb_to_hsv(*COLOURS[thing.colour])
    hue = (hue + rng.uniform(-0.012, 0.012)) % 1.0
    return [
        *start,
        *travel,
        bow if thing.motion.startswith("arc") else 0.0,
        rng.uniform(0.26, 0.34) if thing.motion == "bounce" else 0.0,
        rng.uniform(0.14, 0.18) if thing.motion == "circle" else 0.0,
        angle,
        rng.choice((-1.0, 1.0)),
        SIZES[thing.size] * rng.uniform(0.95, 1.05),
        *colorsys.hsv_to_rgb(hue, saturation, value),
        float(bool(thing.then)),
        *second,
    ]


def _drawn(
    thing: Thing, rng: random.Random, aspect: tuple[float, float]
) -> list[tuple[Thing, list[float]]]:
    """What is drawn for a thing: itself, or each of its group, with `NUMBERS`."""
    numbers = _thing_numbers(thing, rng)
    axis = group_axis(thing.place) or 0
    pitch = GROUP_PITCH * numbers[NUMBERS.index("radius")] / aspect[axis]
    drawn = []
    for index in range(thing.count):
        moved = list(numbers)
        moved[axis] += (index - (thing.count - 1) / 2) * pitch
        drawn.append((thing, moved))
    return drawn


def _paths(numbers: torch.Tensor, time: torch.Tensor, aspect: torch.Tensor) -> torch.Tensor:
    """Centres over time, in short sides.

    Args:
        numbers: (N, 16), see `NUMBERS`.
        time: (F,), 0 to 1.
        aspect: (2,), width and height in short sides.

    Returns:
        (N, F, 2).
    """
    x, y, dx, dy, bow, hop, orbit, angle, spin = numbers[:, :9, None].unbind(1)
    two_legs, second_dx, second_dy = numbers[:, 13:, None].unbind(1)
    lead = torch.where(two_legs > 0, (2 * time).clamp(max=1), time)
    later = (2 * time - 1).clamp(min=0)
    turn = angle + spin * 2 * math.pi * time
    arch, hops = torch.sin(math.pi * time), torch.sin(2 * math.pi * time).abs()
    across = (x + dx * lead + second_dx * later) * aspect[0]
    across = across + orbit * (torch.cos(turn) - torch.cos(angle))
    down = (y + dy * lead + second_dy * later + bow * arch - hop * hops) * aspect[1]
    return torch.stack((across, down + orbit * (torch.sin(turn) - torch.sin(angle))), dim=-1)


def _groups(labels: Sequence[str], device: torch.device) -> Iterator[tuple[str, torch.Tensor]]:
    """Each label that occurs, with the indices where it does."""
    for label in sorted(set(labels)):
        rows = [row for row, other in enumerate(labels) if other == label]
        yield label, torch.tensor(rows, device=device)


def _background(
    scenes: Sequence[Scene], numbers: torch.Tensor, x: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    """Backgrounds for world coordinates x (B, F, 1, W) and y (B, F, H, 1): (B, 3, F, H, W)."""
    tone = x.new_ones(x.shape[0], x.shape[1], y.shape[2], x.shape[3])
    glow = torch.zeros_like(tone)
    for kind, rows in _groups([scene.background_kind for scene in scenes], x.device):
        shift_x, shift_y, angle = numbers[rows, 3:6, None, None, None].unbind(1)
        u, v = x[rows], y[rows]
        if kind == "gradient":
            slope = torch.cos(angle) * (u - 0.5) + torch.sin(angle) * (v - 0.5)
            tone[rows] = (1.0 + 0.9 * slope).clamp(0.35, 1.65)
            glow[rows] = (0.07 * slope + 0.03).clamp(0, 0.1)
        elif kind == "checkered":
            board = (6 * wave(u + shift_x, 0.3) * wave(v + shift_y, 0.3)).clamp(-1, 1)
            tone[rows] = 1 + 0.2 * board
            glow[rows] = 0.03 + 0.03 * board
        elif kind == "starry":
            glow[rows] = stars(u + shift_x, v + shift_y)
        elif kind == "lettered":
            glow[rows] = letters(u + shift_x, v + shift_y)
    colours = numbers[:, :3, None, None, None]
    return colours * tone.unsqueeze(1) + glow.unsqueeze(1)


def _render_chunk(scenes: Sequence[Scene], out: torch.Tensor, span: tuple[float, float]) -> None:
    """Draw `scenes` into `out`, (B, 3, F, H, W)."""
    _, _, frames, height, width = out.shape
    device, short = out.device, min(height, width)
    drawn: list[list[tuple[Thing, list[float]]]] = []
    scene_rows: list[list[float]] = []
    for scene in scenes:
        rng = random.Random(scene.seed)
        shift = [rng.uniform(0, 3), rng.uniform(0, 3), rng.uniform(0, 2 * math.pi)]
        look = [*CAMERAS[scene.camera], *LIGHTS[scene.light]]
        scene_rows.append([*BACKGROUNDS[scene.background], *shift, *look])
        sides = (width / short, height / short)
        drawn.append([part for thing in scene.things for part in _drawn(thing, rng, sides)])
    numbers = torch.tensor(scene_rows).to(device)
    time = torch.linspace(span[0], span[1] if frames > 1 else span[0], frames, device=device)
    aspect = torch.tensor([width / short, height / short]).to(device)
    pan = numbers[:, 6, None] * time * aspect[0]  # (B, F), in short sides
    zoom = numbers[:, 7, None] ** time
    middle = (aspect / 2)[None, None]
    # World coordinates of the pixel centres, apart for x and y as long as possible.
    x = (torch.arange(width, device=device) + 0.5) / short - middle[..., :1]
    y = (torch.arange(height, device=device) + 0.5) / short - middle[..., 1:]
    x = (x / zoom[..., None] + pan[..., None] + middle[..., :1])[:, :, None, :]
    y = (y / zoom[..., None] + middle[..., 1:])[:, :, :, None]

    still = [str(scene.camera == "static") for scene in scenes]
    for label, rows in _groups(still, device):
        seen = slice(0, 1) if label == "True" else slice(None)
        chosen = [scenes[row] for row in rows.tolist()]
        out[rows] = _background(chosen, numbers[rows], x[rows, seen], y[rows, seen]).expand(
            -1, -1, frames, -1, -1
        )
    for slot in range(max(len(parts) for parts in drawn)):
        users = [row for row, parts in enumerate(drawn) if len(parts) > slot]
        rows = torch.tensor(users, device=device)
        things = [drawn[row][slot][0] for row in users]
        own = torch.tensor([drawn[row][slot][1] for row in users]).to(device)
        path = _paths(own, time, aspect)
        radius = own[:, 9, None, None, None]
        pixels = radius * short * zoom[rows, :, None, None]  # pixels to a radius
        u = (x[rows] - path[:, :, 0, None, None]) / radius
        v = (y[rows] - path[:, :, 1, None, None]) / radius
        casting = [index for index, row in enumerate(users) if scenes[row].shadows]
        if casting:
            casters = [things[index] for index in casting]
            depth = _cover(casters, u[casting] - SHADOW_SHIFT, v[casting] - SHADOW_SHIFT)
            soft = depth.mul_(-2).add_(0.5).clamp_(0, 1).mul_(SHADOW_DEPTH)
            out[rows[casting]] *= (1 - soft).unsqueeze(1)
        cover = _cover(things, u, v).mul_(-pixels).add_(0.5).clamp_(0, 1)
        tone = torch.ones_like(cover)
        for texture, part in _groups([thing.texture for thing in things], device):
            if texture != "plain":
                field = TEXTURE_FIELDS[texture](u[part], v[part])
                mix = field.mul_(4).add_(0.5).clamp_(0, 1)
                tone[part] = mix.mul_(1 - SECOND_TONE).add_(SECOND_TONE)
        paint = own[:, 10:13, None, None, None] * tone.unsqueeze(1)
        out[rows] = torch.lerp(out[rows], paint, cover.unsqueeze(1))
    gain = numbers[:, 8, None] + (numbers[:, 9, None] - numbers[:, 8, None]) * time
    out.mul_(2 * gain[:, None, :, None, None]).sub_(1).clamp_(-1, 1)


def _cover(things: Sequence[Thing], u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Signed distance to each thing's outline, in radii: (N, F, H, W)."""
    cover = u.new_empty(u.shape[0], u.shape[1], v.shape[2], u.shape[3])
    for shape, part in _groups([thing.shape for thing in things], u.device):
        cover[part] = SHAPE_FIELDS[shape](u[part], v[part])
    return cover


def render(
    scenes: Sequence[Scene],
    frames: int,
    height: int,
    width: int,
    device: torch.device | str = "cpu",
    span: tuple[float, float] = (0.0, 1.0),
) -> torch.Tensor:
    """Draw scenes as video; the same scenes give the same bits on the same device.

    Args:
        scenes: B scenes.
        frames: F; they sample the span evenly, both ends included (one frame: its start).
        height: H, pixels.
        width: W, pixels.
        device: Where to draw.
        span: Part of the clip's time that is drawn, from 0 to 1.

    Returns:
        float32 (B, 3, F, H, W) in [-1, 1].
    """
    out = torch.empty(len(scenes), 3, frames, height, width, device=device)
    step = max(1, CHUNK_PIXELS // (frames * height * width))
    with torch.no_grad():
        for begin in range(0, len(scenes), step):
            _render_chunk(scenes[begin : begin + step], out[begin : begin + step], span)
    return out
