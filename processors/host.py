"""Reading small tensors on the host: once per tensor, because each read waits for the GPU."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, TypeVar

import torch
from torch.utils.weak import WeakIdKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


def read_once(read: Callable[[torch.Tensor], Result]) -> Callable[[torch.Tensor], Result]:
    """Keep what a function reads from a tensor for as long as the tensor lives unchanged.

    Pipelines make masks and coordinates once per run, so this is one read per run. Tensors made
    under `torch.inference_mode` do not tell whether they were changed in place, so these are read
    at every call.
    """
    kept = WeakIdKeyDictionary()

    @wraps(read)
    def reading(tensor: torch.Tensor) -> Result:
        if tensor.is_inference():
            return read(tensor)
        version, result = kept.get(tensor, (None, None))
        if version != tensor._version:
            result = read(tensor)
            kept[tensor] = (tensor._version, result)
        return result

    return reading


@read_once
def valid_lengths(mask: torch.Tensor) -> tuple[int, ...]:
    """Tokens of each sample that a mask keeps, wherever they are.

    Args:
        mask: (batch, tokens), 1 where a token is kept, else 0, of any dtype: in low precision
            counts would be rounded.
    """
    return tuple(int(length) for length in mask.sum(dim=1, dtype=torch.int).tolist())


@read_once
def prefix_lengths(mask: torch.Tensor) -> tuple[int, ...] | None:
    """How many first tokens of each sample a mask keeps; None if it keeps any others.

    Args:
        mask: (batch, tokens), nonzero where a token is kept.
    """
    kept = (mask != 0).cpu()
    lengths = kept.sum(dim=1)
    if not torch.equal(kept, torch.arange(kept.shape[1], device="cpu") < lengths[:, None]):
        return None
    return tuple(int(length) for length in lengths)


@read_once
def hidden_runs(mask: torch.Tensor) -> tuple[tuple[int, int], ...] | None:
    """Where the tokens that a mask hides start and end in each sample; None if they are not a run.

    Args:
        mask: (batch, ..., tokens), nonzero where a token is kept; the axes between have length 1.
    """
    runs = []
    for kept in (mask != 0).flatten(1).cpu():
        hidden = (~kept).nonzero().flatten().tolist()
        start, end = (hidden[0], hidden[-1] + 1) if hidden else (0, 0)
        if end - start != len(hidden):
            return None
        runs.append((start, end))
    return tuple(runs)
