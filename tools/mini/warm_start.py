"""Starts a training from an earlier pipeline, whose text encoder may be smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffusers import WanPipeline

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import WanTransformer3DModel
    from transformers import UMT5EncoderModel


@torch.no_grad()
def start_from(
    folder: Path, transformer: WanTransformer3DModel, text_encoder: UMT5EncoderModel
) -> None:
    """Copies the weights of a pipeline folder into freshly built modules.

    A text encoder with more layers than the folder's starts as the same function: the further
    layers add nothing at first.

    Args:
        folder: Pipeline folder as `model.assemble` writes it.
        transformer: Same architecture as the folder's.
        text_encoder: Same widths as the folder's, as many layers or more.
    """
    old = WanPipeline.from_pretrained(folder, dtype=torch.float32)
    transformer.load_state_dict(old.transformer.state_dict())
    text_encoder.load_state_dict(old.text_encoder.state_dict(), strict=False)
    for block in text_encoder.encoder.block[len(old.text_encoder.encoder.block) :]:
        block.layer[0].SelfAttention.o.weight.zero_()
        block.layer[1].DenseReluDense.wo.weight.zero_()
