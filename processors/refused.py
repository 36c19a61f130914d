"""Transformers whose attention leaves little or nothing to gain, and why."""

from __future__ import annotations

LINEAR = (
    "its self-attention is linear: the cost already grows with the number of tokens, not with its "
    "square, and there is no attention map to leave parts out of"
)

REFUSED: dict[str, str] = {
    "SanaTransformer2DModel": f"{LINEAR}; the nearest with a full map is FluxTransformer2DModel",
    "SanaVideoTransformer3DModel": (
        f"{LINEAR}; the nearest with a full map is WanTransformer3DModel, whose rotary embedding "
        "it shares"
    ),
    "SanaWMTransformer3DModel": (
        "three of four blocks are recurrent along the frames and have no attention map, the fourth "
        "attends twice, once to camera rays; the nearest is WanTransformer3DModel, and a processor "
        "for every fourth block would be needed"
    ),
    "WanAnimate2Transformer3DModel": (
        "its frames attend to a cached reference through a sparse map of its own, so that queries "
        "and keys are not the same tokens; the nearest is WanAnimateTransformer3DModel"
    ),
}
"""By class name."""
