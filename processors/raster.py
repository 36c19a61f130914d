"""Finding the token grid among tokens whose places are given one by one.

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


def raster_of(coordinates: torch.Tensor) -> TokenGrid | None:
    """The raster among tokens, from where they are.

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
    runs: list[TokenGrid] = []
    start, last = 0, None
    for frame in frames:
        height, width = plane_extents(frame[:, 1:])
        if last is not None and last[0, 0] < frame[0, 0] and torch.equal(last[:, 1:], frame[:, 1:]):
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


def plane_extents(places: torch.Tensor) -> tuple[int, int]:
    """(height, width) of tokens in raster order; (0, 0) if they are not all of one grid.

    Args:
        places: (tokens, 2): h and w of each token, ascending.
    """
    height, width = (len(axis.unique()) for axis in places.unbind(dim=1))
    return (height, width) if height * width == len(places) else (0, 0)
