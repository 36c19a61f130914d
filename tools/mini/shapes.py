"""The fields behind a scene: shapes, textures and stars as functions of a coordinate.

Coordinates come apart, x as (N, F, 1, W) and y as (N, F, H, 1), so that work on one axis is cheap.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    Field = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

STAR_CELLS = 64  # the star table repeats after this many cells


def _star(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Distance to a five-pointed star: fold the plane into half a point, then one straight edge."""
    half = math.pi / 5
    tip, notch = (1.2, 0.0), (0.55 * math.cos(half), 0.55 * math.sin(half))
    length = math.hypot(tip[0] - notch[0], notch[1])
    normal = (notch[1] / length, (tip[0] - notch[0]) / length)
    fold = (torch.remainder(torch.atan2(x, -y) + half, 2 * half) - half).abs()
    edge_angle = math.atan2(normal[1], normal[0])
    return torch.hypot(x, y) * torch.cos(fold - edge_angle) - normal[0] * tip[0]


def _cross(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Distance to an upright cross of two bars."""
    x, y = x.abs(), y.abs()
    return torch.minimum(torch.maximum(x - 1, y - 0.36), torch.maximum(x - 0.36, y - 1))


# Signed distance (negative inside) in radii; x is (N, F, 1, W), y is (N, F, H, 1).
SHAPE_FIELDS: dict[str, Field] = {
    "circle": lambda x, y: torch.hypot(x, y) - 1,
    "square": lambda x, y: torch.maximum(x.abs() - 0.87, y.abs() - 0.87),
    "triangle": lambda x, y: torch.maximum(0.866 * x.abs() - (0.5 * y + 0.62), y - 0.62),
    "star": _star,
    "ring": lambda x, y: (torch.hypot(x, y) - 0.76).abs() - 0.24,
    "cross": _cross,
}


def wave(x: torch.Tensor, period: float) -> torch.Tensor:
    """A sine of the given period."""
    return torch.sin(x * (2 * math.pi / period))


TEXTURE_SHIFT = 0.3  # of a texture against its thing, in radii: no tone is cut in half


def _texture(field: Field) -> Field:
    return lambda x, y: field(x + TEXTURE_SHIFT, y + TEXTURE_SHIFT)


# Positive where the first tone shows; coordinates in radii, from the thing's centre.
TEXTURE_FIELDS: dict[str, Field] = {
    "striped": _texture(lambda x, y: wave(x + y, 1.3)),
    "checkered": _texture(lambda x, y: wave(x, 1.35) * wave(y, 1.35)),
    "dotted": _texture(lambda x, y: 0.6 - 0.9 * (wave(x, 0.85) + wave(y, 0.85))),
}


def stars(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Brightness of small dots, one at most to each cell of 0.11 short sides."""
    table = torch.rand(4, STAR_CELLS, STAR_CELLS, generator=torch.Generator().manual_seed(0))
    table = table.to(x.device)
    u, v = x / 0.11, y / 0.11
    column, row = torch.floor(u), torch.floor(v)
    cell = (row.long() % STAR_CELLS, column.long() % STAR_CELLS)
    offset_x, offset_y, radius, light = table[:, cell[0], cell[1]].unbind(0)
    away = torch.hypot(u - column - 0.2 - 0.6 * offset_x, v - row - 0.2 - 0.6 * offset_y)
    dots = ((0.08 + 0.07 * radius - away) * 14 + 0.5).clamp(0, 1)
    return dots * (light - 0.35).clamp(0, 0.4)


def letters(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Brightness of rows of made-up letters, 3 x 5 dots each, in cells of 0.09 short sides."""
    generator = torch.Generator().manual_seed(1)
    dots = torch.rand(5, 3, STAR_CELLS, STAR_CELLS, generator=generator) < 0.55
    dots &= torch.rand(STAR_CELLS, STAR_CELLS, generator=generator) < 0.75  # the rest are spaces
    table = torch.zeros(6, 4, STAR_CELLS, STAR_CELLS)
    table[:5, :3] = dots
    table = table.to(x.device)
    u, v = x / 0.09, y / 0.09
    column, row = torch.floor(u), torch.floor(v)
    across, down = (4 * (u - column)).long().clamp(0, 3), (6 * (v - row)).long().clamp(0, 5)
    lit = table[down, across, row.long() % STAR_CELLS, column.long() % STAR_CELLS]
    return 0.22 * lit
