"""Families with a mask over their tokens, which hides one stretch of them: text padding."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from ajour.processors.base import Family, Obstacle
from ajour.processors.host import hidden_runs

if TYPE_CHECKING:
    import torch

    from ajour.grid import TokenGrid
    from ajour.processors.base import Call

ONE_STRETCH = (
    "calls whose mask hides other tokens than one stretch of text: only that is left out exactly"
)


class MaskedText(Family):
    """A family whose text padding may lie anywhere in the text."""

    @abstractmethod
    def mask(self, call: Call) -> torch.Tensor | None:
        """Of text or more, (batch, ..., tokens), nonzero where a token is kept; or None."""

    def mask_start(self, call: Call) -> int:
        """The token that the mask begins with."""
        return 0

    def hidden(self, call: Call) -> tuple[tuple[int, int], ...]:
        """Where the hidden tokens of each sample start and end; empty without a mask.

        Raises:
            Obstacle: if they are not one stretch of text, which ends at the same place in all.
        """
        mask, text = self.mask(call), call["encoder_hidden_states"].shape[1]
        runs = () if mask is None else hidden_runs(mask)
        if runs is None or any(end > text for _, end in runs) or len({b for _, b in runs if b}) > 1:
            raise Obstacle("the mask hides other tokens than one stretch of text")
        return runs

    def padding(self, call: Call) -> tuple[int, ...]:
        """From the mask."""
        return tuple(end - start for start, end in self.hidden(call))

    def padding_end(self, call: Call, whole: TokenGrid) -> int:
        """Where the hidden stretch ends."""
        ends = {end for _, end in self.hidden(call) if end}
        return self.mask_start(call) + ends.pop() if ends else whole.seq_len
