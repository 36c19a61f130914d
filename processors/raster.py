"""Finding the token grid among tokens whose places are given one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Raster:
    """A run of tokens that fills a (frames, height, width) grid, and the tokens around it.

    Those around it, such as images to refer to or frames to condition on, can count as text: then
    they are exact as keys and as queries.

    Args:
        extents: (frames, height, width).
        before: tokens in front of the run.
        after: tokens behind it.
    """

    extents: tuple[int, int, int]
    before: int = 0
    after: int = 0

    @property
    def tokens(self) -> int:
        """Tokens on the grid."""
        frames, height, width = self.extents
        return frames * height * width


def raster_of(coordinates: torch.Tensor) -> Raster | None:
    """The largest raster among tokens, from where they are.

    Args:
        coordinates: (tokens, 3): t, h and w of each token, evenly spaced or not.

    Returns:
        None if less than half the tokens are on it: then there is little to leave out.
    """
    places = coordinates.cpu()
    (time, row, column), (next_time, next_row, next_column) = places[:-1].T, places[1:].T
    ahead = (next_row > row) | ((next_row == row) & (next_column > column))
    ends = ((next_time != time) | ~ahead).nonzero().flatten() + 1
    frames = places.tensor_split(ends)
    runs: list[Raster] = []
    start, last = 0, None
    for frame in frames:
        height, width = plane_extents(frame[:, 1:])
        if last is not None and last[0, 0] < frame[0, 0] and torch.equal(last[:, 1:], frame[:, 1:]):
            runs[-1] = replace(runs[-1], extents=(runs[-1].extents[0] + 1, height, width))
        elif height:
            runs.append(Raster((1, height, width), start))
        last = frame if height else None
        start += len(frame)
    return largest(runs, len(places))


def raster_of_shapes(shapes: Sequence[Sequence[int]]) -> Raster | None:
    """The largest raster among grids of tokens that follow each other.

    Args:
        shapes: (frames, height, width) of each; neighbours of equal height and width are one.

    Returns:
        None if less than half the tokens are on it.
    """
    runs: list[Raster] = []
    for (height, width), group in groupby(shapes, key=lambda shape: tuple(shape[1:])):
        before = runs[-1].before + runs[-1].tokens if runs else 0
        runs.append(Raster((sum(frames for frames, *_ in group), height, width), before))
    return largest(runs, sum(run.tokens for run in runs))


def largest(runs: Sequence[Raster], tokens: int) -> Raster | None:
    """The run with most tokens, if it has at least half of all `tokens`; of several the first."""
    best = max(runs, key=lambda run: run.tokens, default=None)
    if best is None or 2 * best.tokens < tokens:
        return None
    return replace(best, after=tokens - best.before - best.tokens)


def plane_extents(places: torch.Tensor) -> tuple[int, int]:
    """(height, width) of tokens in raster order; (0, 0) if they are not all of one grid.

    Args:
        places: (tokens, 2): h and w of each token, ascending.
    """
    height, width = (len(axis.unique()) for axis in places.unbind(dim=1))
    return (height, width) if height * width == len(places) else (0, 0)
