"""What a family's case consists of, and sizes that all cases share."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ajour import TokenGrid

HEADS, HEAD_DIM, TEXT_DIM = 2, 16, 24


@dataclass(frozen=True)
class Case:
    """A family: `build(**config)` and `inputs(grid, text, batch)`.

    Where its text is, before or after the grid, how many tokens are exact, which inputs it takes,
    its whole token grid if there are exact tokens on both sides, and the case that it is kin to:
    one that stands for both where tests take long and are about our processor, not the family.
    """

    build: Callable
    inputs: Callable
    text: str | None
    exact: Callable = lambda grid, text: text
    fits: Callable = lambda grid, text: True
    grid_of: Callable | None = None
    kin: str | None = None

    def grid(self, grid, text):
        """The token grid of a call."""
        if self.grid_of is not None:
            return self.grid_of(grid, text)
        return TokenGrid(*grid, **({self.text: self.exact(grid, text)} if self.text else {}))


def image_grid(grid, text):
    """One image, then text."""
    frames, height, width = grid
    return TokenGrid(1, frames * height, 2 * width, after=text)


def raster(grid):
    """(tokens, 3): where each token of a grid is."""
    return torch.cartesian_prod(*(torch.arange(n) for n in grid)).reshape(-1, 3)
