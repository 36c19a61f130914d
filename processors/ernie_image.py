"""ERNIE-Image (`ErnieImageTransformer2DModel`): image, then text."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ajour.grid import TokenGrid
from ajour.processors.base import Family
from ajour.processors.host import read_once

if TYPE_CHECKING:
    import torch

    from ajour.processors.base import Call


class ErnieImage(Family):
    """ERNIE-Image text-to-image."""

    classes: ClassVar[tuple[str, ...]] = ("ErnieImageTransformer2DModel",)
    processors: ClassVar[tuple[str, ...]] = ("ErnieImageSingleStreamAttnProcessor",)
    blocks: ClassVar[tuple[str, ...]] = ("layers",)
    attention: ClassVar[str] = "self_attention"
    pipelines: ClassVar[tuple[str, ...]] = ("ErnieImagePipeline",)
    sparse: ClassVar[str] = (
        "joint attention of image and text in every block; text padding is left out"
    )

    def grid(self, call: Call) -> TokenGrid:
        """(B, C, H, W) divided by the patch size, then all text tokens."""
        patch = call.config.patch_size
        height, width = (n // patch for n in call["hidden_states"].shape[2:])
        return TokenGrid(1, height, width, after=call["text_bth"].shape[1])

    def padding(self, call: Call) -> tuple[int, ...]:
        """From the lengths of the texts."""
        tokens = int(call["text_bth"].shape[1])
        return tuple(tokens - length for length in text_lengths(call["text_lens"]))


@read_once
def text_lengths(lengths: torch.Tensor) -> tuple[int, ...]:
    """The numbers of a tensor (batch,)."""
    return tuple(int(length) for length in lengths.tolist())
