"""Cosmos 1 to 2.5 (`CosmosTransformer3DModel`): video tokens only (arXiv 2501.03575)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ajour.processors.processor import SparseProcessor
from ajour.processors.projections import project
from ajour.processors.wan import Wan

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


class CosmosProcessor(SparseProcessor):
    """Self-attention; the stock code calls the dispatch without its backend."""

    def run(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Projections, attention, output projection; arguments and result are stock's.

        Only `image_rotary_emb` is not None: cosines and sines, (video tokens, head_dim) each.
        """
        from diffusers.models.embeddings import apply_rotary_emb

        query, key, value = project(attn, hidden_states)
        if image_rotary_emb is not None:
            options = {"use_real_unbind_dim": -2, "sequence_dim": 1}
            query = apply_rotary_emb(query, image_rotary_emb, **options)
            key = apply_rotary_emb(key, image_rotary_emb, **options)
        mixed = self.attend(query, key, value).flatten(2)
        return attn.to_out[1](attn.to_out[0](mixed))


class Cosmos(Wan):
    """Cosmos text-to-world, video-to-world, text-to-image and transfer."""

    classes: ClassVar[tuple[str, ...]] = ("CosmosTransformer3DModel",)
    processors: ClassVar[tuple[str, ...]] = ()
    rewritten: ClassVar[Mapping[str, type[SparseProcessor]]] = {
        "CosmosAttnProcessor2_0": CosmosProcessor
    }
    blocks: ClassVar[tuple[str, ...]] = ("transformer_blocks",)
    pipelines: ClassVar[tuple[str, ...]] = (
        "Cosmos2TextToImagePipeline",
        "Cosmos2VideoToWorldPipeline",
        "Cosmos2_5_PredictBasePipeline",
        "Cosmos2_5_TransferPipeline",
        "CosmosTextToWorldPipeline",
        "CosmosVideoToWorldPipeline",
    )
    sparse: ClassVar[str] = "self-attention (`attn1`) of every block"
