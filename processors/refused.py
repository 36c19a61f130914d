"""Transformers that are not supported, and why: a sentence for every other class of diffusers."""

from __future__ import annotations

from dataclasses import dataclass

LINEAR = (
    "its self-attention is linear: the cost already grows with the number of tokens, not with its "
    "square, and there is no attention map to leave parts out of"
)
CAUSAL = (
    "its attention is causal over chunks of frames, so that a block of 128 tokens lies across the "
    "edge of what it may see; a token grid per chunk, with earlier chunks as keys alone, would be "
    "needed"
)
CACHED = (
    "it has fewer queries than keys where it caches keys of earlier tokens; a family that counts "
    "the cached tokens as keys alone would be needed"
)


@dataclass(frozen=True)
class Size:
    """A usual size of a released model, and what one block of it computes there.

    Args:
        name: for the documentation.
        tokens: of all that attend to each other.
        channels: of all heads together.
        weights: of the block's linear layers that every token passes, in squares of `channels`.
    """

    name: str
    tokens: int
    channels: int
    weights: float

    @property
    def share(self) -> float:
        """Share of the attention map in the FLOPs of the block, from 0 to 1.

        For N tokens of C channels the two products with the map take 4 N^2 C FLOPs, and linear
        layers with w C^2 weights 2 N w C^2. So the share is 2 N / (2 N + w C).
        """
        return 2 * self.tokens / (2 * self.tokens + self.weights * self.channels)

    def __str__(self) -> str:
        return f"{self.share:.0%} of a block's FLOPs at {self.name} ({self.tokens:,} tokens)"


IMAGE, LARGE = "1,024 x 1,024 pixels", "2,048 x 2,048 pixels"

SIZES: dict[str, Size] = {
    "AllegroTransformer3DModel": Size("720 x 1,280 pixels, 88 frames", 79_200, 2304, 14),
    "AuraFlowTransformer2DModel": Size(IMAGE, 4096, 3072, 12),
    "BriaFibo2Transformer2DModel": Size(IMAGE, 4096 + 256, 3584, 12),
    "CogView3PlusTransformer2DModel": Size(IMAGE, 4096, 2560, 12),
    "CogView4Transformer2DModel": Size(LARGE, 16_384, 4096, 12),
    "DiTTransformer2DModel": Size("512 x 512 pixels", 1024, 1152, 12),
    "EasyAnimateTransformer3DModel": Size("384 x 672 pixels, 49 frames", 13_104, 3072, 12),
    "Flux3Transformer2DModel": Size(LARGE, 16_384, 3072, 13),
    "GlmImageTransformer2DModel": Size(IMAGE, 4096, 4096, 12),
    "HiDreamImageTransformer2DModel": Size(IMAGE, 4096, 2560, 24.25),
    "HunyuanDiT2DModel": Size(IMAGE, 4096, 1408, 15.7),
    "Ideogram4Transformer2DModel": Size(LARGE, 16_384, 4608, 12),
    "LatteTransformer3DModel": Size("512 x 512 pixels, within a frame", 1024, 1152, 14),
    "Lumina2Transformer2DModel": Size(IMAGE, 4096 + 256, 2304, 14.7),
    "LuminaNextDiT2DModel": Size(IMAGE, 4096, 2304, 14.5),
    "OmniGenTransformer2DModel": Size(IMAGE, 4096, 3072, 12),
    "PixArtTransformer2DModel": Size(IMAGE, 4096, 1152, 14),
    "SD3Transformer2DModel": Size(IMAGE, 4096 + 333, 1536, 12),
}
"""By class name. Widths are those of released models as far as known; not all were checked against
their weights."""


def own_attention(processor: str) -> str:
    """Of classes whose processor does not use `dispatch_attention_fn`."""
    return f"{processor} calls PyTorch's attention itself; one of our own would be needed"


def without_grid(tokens: str) -> str:
    """Of classes whose tokens are no image or video."""
    return f"its tokens are {tokens}: there is no grid of images or videos for patterns to lie on"


REASONS: dict[str, str] = {
    "AceStepTransformer1DModel": without_grid("music"),
    "AllegroTransformer3DModel": own_attention("AllegroAttnProcessor2_0"),
    "AnyFlowFARTransformer3DModel": f"{CAUSAL}; the nearest is AnyFlowTransformer3DModel",
    "AuraFlowTransformer2DModel": own_attention("AuraFlowAttnProcessor2_0"),
    "BriaFibo2Transformer2DModel": (
        "the number of its gist tokens follows from the text's length, and a batch with several "
        "numbers puts them behind the image; a family that knows both orders would be needed"
    ),
    "CogView3PlusTransformer2DModel": own_attention("CogVideoXAttnProcessor2_0, for images,"),
    "CogView4Transformer2DModel": own_attention("CogView4AttnProcessor"),
    "DiTTransformer2DModel": own_attention("AttnProcessor2_0"),
    "DreamLiteTransformer2DModel": (
        "a part of a U-Net, with few tokens: its pictures are made smaller before they attend"
    ),
    "EasyAnimateTransformer3DModel": own_attention("EasyAnimateAttnProcessor2_0"),
    "Flux3Transformer2DModel": (
        "its image attends alone in the first blocks, with text in the others, and a plan has one "
        "token grid for all layers; a grid per layer would be needed"
    ),
    "GlmImageTransformer2DModel": f"with images to edit {CACHED}",
    "HeliosTransformer3DModel": (
        "autoregressive over chunks of frames, with past frames of three sizes in front; a family "
        "that counts them, as HunyuanVideoFramepack's does, would be needed"
    ),
    "HiDreamImageTransformer2DModel": own_attention("HiDreamAttnProcessor"),
    "HunyuanDiT2DModel": own_attention("HunyuanAttnProcessor2_0"),
    "Ideogram4Transformer2DModel": (
        "a mask of tokens by tokens keeps packed samples apart, and head_dim is 256; a family that "
        "reads where samples end would be needed"
    ),
    "JoyImageEditPlusTransformer3DModel": (
        "its mask may hide two stretches, behind the images and behind the text; text padding of "
        "two places would be needed"
    ),
    "Kandinsky6SRTransformer3DModel": (
        "its attention is sparse already: NABLA keeps the blocks that hold 80 % of the attention"
    ),
    "LatteTransformer3DModel": (
        "it attends within frames and along time, never over all tokens of the video; "
        + own_attention("AttnProcessor2_0")
    ),
    "LongCatAudioDiTTransformer": without_grid("sound"),
    "Lumina2Transformer2DModel": own_attention("Lumina2AttnProcessor2_0"),
    "LuminaNextDiT2DModel": own_attention("LuminaAttnProcessor2_0"),
    "MiniMaxMusic3RVQDepthDecoder": without_grid("codes of music"),
    "MiniMaxMusic3Transformer1DModel": without_grid("music"),
    "OmniGenTransformer2DModel": (
        "its text and images attend through a mask of tokens by tokens, causal over text; "
        + own_attention("OmniGenAttnProcessor2_0")
    ),
    "PixArtTransformer2DModel": own_attention("AttnProcessor2_0"),
    "PriorTransformer": without_grid("embeddings of CLIP"),
    "QwenImage21Transformer2DModel": (
        f"its text and references attend block by block through a mask, and {CACHED}"
    ),
    "RFD4ProteinaTransformer": without_grid("parts of proteins"),
    "SD3Transformer2DModel": own_attention("JointAttnProcessor2_0"),
    "SanaTransformer2DModel": f"{LINEAR}; the nearest with a full map is FluxTransformer2DModel",
    "SanaVideoTransformer3DModel": (
        f"{LINEAR}; the nearest with a full map is WanTransformer3DModel, whose rotary embedding "
        "it shares"
    ),
    "SanaWMLTX2RefinerTransformer3DModel": (
        f"autoregressive over windows of frames: {CACHED}; the nearest is "
        "LTX2VideoTransformer3DModel"
    ),
    "SanaWMTransformer3DModel": (
        "three of four blocks are recurrent along the frames and have no attention map, the fourth "
        "attends twice, once to camera rays; the nearest is WanTransformer3DModel, and a processor "
        "for every fourth block would be needed"
    ),
    "StableAudio3DiTModel": without_grid("sound"),
    "StableAudioDiTModel": without_grid("sound"),
    "T5FilmDecoder": without_grid("spectrograms of music"),
    "Transformer2DModel": "a part of U-Nets, with few tokens; it is no diffusion transformer",
    "TransformerTemporalModel": (
        "a part of U-Nets, which attends along time: 16 to 32 tokens, fewer than one block of 128"
    ),
    "WanAnimate2Transformer3DModel": (
        "its frames attend to a cached reference through a sparse map of its own, so that queries "
        "and keys are not the same tokens; the nearest is WanAnimateTransformer3DModel"
    ),
}

REFUSED: dict[str, str] = {
    name: f"{reason} (attention is {SIZES[name]})" if name in SIZES else reason
    for name, reason in REASONS.items()
}
"""Why a transformer is not supported, by class name, with attention's share where it is known."""
