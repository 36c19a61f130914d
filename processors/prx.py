"""PRX (`PRXTransformer2DModel`): image, which attends to text and itself; text has keys alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ajour.grid import TokenGrid
from ajour.processors.masked import ONE_STRETCH, MaskedText

if TYPE_CHECKING:
    import torch

    from ajour.processors.base import Call


class PRX(MaskedText):
    """PRX text-to-image."""

    classes: ClassVar[tuple[str, ...]] = ("PRXTransformer2DModel",)
    processors: ClassVar[tuple[str, ...]] = ("PRXAttnProcessor2_0",)
    blocks: ClassVar[tuple[str, ...]] = ("blocks",)
    attention: ClassVar[str] = "attention"
    pipelines: ClassVar[tuple[str, ...]] = ("PRXPipeline", "PRXPixelPipeline")
    sparse: ClassVar[str] = (
        "attention of the image to text and itself in every block; text padding is left out"
    )
    dense: ClassVar[tuple[str, ...]] = (ONE_STRETCH,)

    def mask(self, call: Call) -> torch.Tensor | None:
        """Of the text."""
        mask: torch.Tensor | None = call["attention_mask"]
        return mask

    def keys_alone(self, call: Call, whole: TokenGrid) -> tuple[int, int]:
        """All text."""
        return whole.before, 0

    def grid(self, call: Call) -> TokenGrid:
        """All text, then (B, C, H, W) divided by the patch size."""
        self.hidden(call)
        height, width = (n // call.config.patch_size for n in call["hidden_states"].shape[2:])
        return TokenGrid(1, height, width, before=call["encoder_hidden_states"].shape[1])
