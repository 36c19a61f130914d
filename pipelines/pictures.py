"""The pictures in what a pipeline returned, in whatever form it returned them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray


def pictures(output: Any) -> NDArray[np.float32]:
    """The first video of an output, or the first image as a video of one frame.

    Args:
        output: a pipeline's output, of which the first entry counts; or videos, a video or an image
            in themselves: arrays (..., height, width, 3), tensors (..., 3, height, width) or PIL
            images, perhaps in lists. Numbers are from 0 to 1, or bytes.

    Returns:
        (F,H,W,3) in [0,1].

    Raises:
        TypeError: if there are no pictures in it.
    """
    if isinstance(output, dict | tuple) and len(output):  # diffusers' outputs are dictionaries
        batch = next(iter(output.values() if isinstance(output, dict) else output))
        output = batch[0] if hasattr(batch, "__getitem__") and len(batch) else batch
    made = _array(output)
    if made.ndim == 5:
        made = made[0]
    if made.ndim == 3:
        made = made[None]
    if made.ndim != 4 or made.shape[-1] != 3 or made.dtype.kind not in "uif":
        raise TypeError(
            "a run must return pictures: an array (frames, height, width, 3), a tensor (frames, "
            f"3, height, width) or PIL images; got {type(output).__name__} of shape {made.shape}"
        )
    return (made / 255 if made.dtype.kind in "ui" else made).astype(np.float32)


def _array(value: Any) -> NDArray[Any]:
    """Pictures with their channels last."""
    if isinstance(value, list | tuple):
        return np.stack([_array(part) for part in value]) if value else np.empty(0)
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        array = np.asarray(value.float() if value.is_floating_point() else value)
        return np.moveaxis(array, -3, -1) if array.ndim >= 3 else array
    return np.asarray(value.convert("RGB") if hasattr(value, "convert") else value)
