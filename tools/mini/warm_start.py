"""Starts a training from an earlier pipeline, whose text encoder may be smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffusers import WanPipeline

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import WanTransformer3DModel
    from transformers import PreTrainedTokenizerFast, UMT5EncoderModel


@torch.no_grad()
def start_from(
    folder: Path,
    transformer: WanTransformer3DModel,
    text_encoder: UMT5EncoderModel,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Copies the weights of a pipeline folder into freshly built modules.

    A text encoder with more layers than the folder's starts as the same function: the further
    layers add nothing at first. Embeddings follow their token's spelling; a new token starts as the
    mean of the old tokens that spell it.

    Args:
        folder: Pipeline folder as `model.assemble` writes it.
        transformer: Same architecture as the folder's.
        text_encoder: Same widths as the folder's, as many layers or more.
        tokenizer: Tokenizer of the new training.
    """
    old = WanPipeline.from_pretrained(folder, dtype=torch.float32)
    transformer.load_state_dict(old.transformer.state_dict())
    weights = old.text_encoder.state_dict()
    table = weights["shared.weight"]
    fresh = text_encoder.state_dict()
    rows = fresh["shared.weight"].clone()
    known = old.tokenizer.get_vocab()
    for token, index in tokenizer.get_vocab().items():
        if token in known:
            rows[index] = table[known[token]]
        else:
            spelt = tokenizer.decode([index])
            pieces = old.tokenizer(spelt, add_special_tokens=False).input_ids
            rows[index] = table[pieces].mean(0)
    for name in ("shared.weight", "encoder.embed_tokens.weight"):
        if name in weights:
            weights[name] = rows
    text_encoder.load_state_dict(weights, strict=False)
    for block in text_encoder.encoder.block[len(old.text_encoder.encoder.block) :]:
        block.layer[0].SelfAttention.o.weight.zero_()
        block.layer[1].DenseReluDense.wo.weight.zero_()
