"""Finding the token grid among tokens whose places are given one by one.

Places may be rounded, as to bfloat16, so that neighbours have the same one: the columns of a row
still ascend, and start again with the next row.

The largest run of tokens that fill a (frames, height, width) grid is the raster. The tokens around
it, such as images to refer to or frames to condition on, can count as text: then they are exact as
keys and as queries.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

import torch

from ajour.grid import TokenGrid

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDED = 2.0**-7
"""Largest distance between neighbouring numbers of bfloat16, relative to them."""


def raster_of(coordinates: torch.Tensor) -> TokenGrid | None:
    """The raster among tokens, from where they are.

    Args:
        coordinates: (tokens, 3): t, h and w of each token, evenly spaced or not, of any dtype.

    Returns:
        None if less than half the tokens are on it: then there is little to leave out.
    """
    places = coordinates.cpu().double()
    (time, row, column), (next_time, next_row, next_column) = places[:-1].T, places[1:].T
    further = (next_column > column) | ((next_column == column) & may_be_rounded(column))
    further |= (next_column < column) & may_be_rounded(row)
    ahead = (next_row > row) | ((next_row == row) & further)
    later = (next_time > time) | ((next_time == time) & may_be_rounded(time))
    ends = ((next_time != time) | ~ahead).nonzero().flatten() + 1
    frames = places.tensor_split(ends)
    runs: list[TokenGrid] = []
    start, last = 0, None
    for frame in frames:
        height, width = plane_extents(frame[:, 1:])
        follows = last is not None and bool(later[start - 1])
        if last is not None and follows and torch.equal(last[:, 1:], frame[:, 1:]):
            runs[-1] = replace(runs[-1], frames=runs[-1].frames + 1)
        elif height:
            runs.append(TokenGrid(1, height, width, before=start))
        last = frame if height else None
        start += len(frame)
    return largest(runs, len(places))


def raster_of_shapes(shapes: Sequence[Sequence[int]]) -> TokenGrid | None:
    """The raster among grids of tokens that follow each other.

    Args:
        shapes: (frames, height, width) of each; neighbours of equal height and width are one.

    Returns:
        None if less than half the tokens are on it.
    """
    runs: list[TokenGrid] = []
    for (height, width), group in groupby(shapes, key=lambda shape: tuple(shape[1:])):
        before = runs[-1].seq_len if runs else 0
        runs.append(TokenGrid(sum(frames for frames, *_ in group), height, width, before))
    return largest(runs, sum(run.video_tokens for run in runs))


def largest(runs: Sequence[TokenGrid], tokens: int) -> TokenGrid | None:
    """The run with most tokens, if it has at least half of all `tokens`; of several the first."""
    best = max(runs, key=lambda run: run.video_tokens, default=None)
    if best is None or 2 * best.video_tokens < tokens:
        return None
    return replace(best, after=tokens - best.seq_len)


def may_be_rounded(places: torch.Tensor) -> torch.Tensor:
    """Where the next place along an axis may have been rounded to the same number: bool (n,).

    Args:
        places: (n,), places along the axis in the order of tokens.
    """
    steps = places.diff()
    steps = steps[steps > 0]
    if not len(steps):
        return torch.zeros_like(places, dtype=torch.bool)
    return places.abs() * ROUNDED >= steps.min()


def plane_extents(places: torch.Tensor) -> tuple[int, int]:
    """(height, width) of tokens in raster order; (0, 0) if they are not all of one grid.

    Args:
        places: (tokens, 2): h and w of each token, ascending.
    """
    rows, columns = places.T
    ends = ((rows.diff() != 0) | (columns.diff() < 0)).nonzero().flatten() + 1
    width = int(ends[0]) if len(ends) else len(places)
    height = len(places) // width
    if len(places) != height * width or ends.tolist() != list(range(width, len(places), width)):
        return 0, 0
    table = columns.view(height, width)
    return (height, width) if bool((table == table[0]).all()) else (0, 0)
