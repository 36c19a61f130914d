"""Reading small tensors on the host: once per tensor, because each read waits for the GPU."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, TypeVar

from torch.utils.weak import WeakIdKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

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


def raster_extents(coordinates: torch.Tensor) -> tuple[int, int, int] | None:
    """The (frames, height, width) of tokens in raster order, from where they are.

    Args:
        coordinates: (tokens, 3): t, h and w of each token, evenly spaced or not.

    Returns:
        None if the tokens are not all the points of one grid in raster order.
    """
    ranks = [axis.unique(return_inverse=True)[1] for axis in coordinates.cpu().unbind(dim=1)]
    frames, height, width = (int(rank.max()) + 1 for rank in ranks)
    if frames * height * width != len(coordinates):
        return None
    places = (ranks[0] * height + ranks[1]) * width + ranks[2]
    return (frames, height, width) if bool((places.diff() == 1).all()) else None
