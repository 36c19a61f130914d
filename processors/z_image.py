"""Z-Image (`ZImageTransformer2DModel`): image, then text, each filled up to 32 tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ajour.grid import TokenGrid
from ajour.processors.base import Family, Obstacle

if TYPE_CHECKING:
    from ajour.processors.base import Call


class ZImage(Family):
    """Z-Image text-to-image, image-to-image, inpainting and ControlNet."""

    classes: ClassVar[tuple[str, ...]] = ("ZImageTransformer2DModel",)
    processors: ClassVar[tuple[str, ...]] = ("ZSingleStreamAttnProcessor",)
    pipelines: ClassVar[tuple[str, ...]] = (
        "ZImageControlNetInpaintPipeline",
        "ZImageControlNetPipeline",
        "ZImageImg2ImgPipeline",
        "ZImageInpaintPipeline",
        "ZImagePipeline",
    )
    dense_pipelines: ClassVar[dict[str, str]] = {
        "ZImageOmniPipeline": "each sample has several images, and text in front of each"
    }
    sparse: ClassVar[str] = "joint attention of image and text in every block"
    dense: ClassVar[tuple[str, ...]] = (
        "the refiners of noise and of text: two blocks each, before the joint ones",
        "calls with several images (omni mode) or images of different sizes",
    )
    timestep: ClassVar[str] = "t"
    blocks: ClassVar[tuple[str, ...]] = ("layers",)
    attention: ClassVar[str] = "attention"

    def grid(self, call: Call) -> TokenGrid:
        """(C, T, H, W) divided by the patch sizes; tokens that fill up image and text are exact."""
        images = call["x"]
        if isinstance(images[0], list) or len({image.shape for image in images}) > 1:
            raise Obstacle("a sample has several images (omni mode), or images differ in size")
        patch = (call["f_patch_size"], call["patch_size"], call["patch_size"])
        frames, height, width = (n // p for n, p in zip(images[0].shape[1:], patch, strict=True))
        text = max(len(text) for text in call["cap_feats"])
        filling = _filling(frames * height * width) + _filling(text)
        return TokenGrid(frames, height, width, after=text + filling)

    def padding(self, call: Call) -> tuple[int, ...]:
        """Samples with less text are padded to the longest, behind a mask."""
        lengths = [len(text) + _filling(len(text)) for text in call["cap_feats"]]
        return tuple(max(lengths) - length for length in lengths)


def _filling(tokens: int) -> int:
    """How many tokens the transformer adds to image or text."""
    from diffusers.models.transformers.transformer_z_image import SEQ_MULTI_OF

    return -tokens % int(SEQ_MULTI_OF)
