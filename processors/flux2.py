"""FLUX.2 (`Flux2Transformer2DModel`): text, then image, then references; two kinds of block.

The attention of single-stream blocks is one projection with their MLP, before and after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ajour.grid import TokenGrid
from ajour.processors.base import Family, Obstacle, SparseProcessor, argument, weight_of
from ajour.processors.host import read_once
from ajour.processors.joint import Stream, inputs_of, joint_inputs, rope_of
from ajour.processors.raster import raster_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ajour.processors.raster import Raster


class DualProcessor(SparseProcessor):
    """The attention of dual-stream blocks."""

    stands_in_for: ClassVar[tuple[str, ...]] = ("Flux2AttnProcessor",)

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stock attention while the context has no table, else block-sparse attention.

        Args:
            attn: the `Flux2Attention` module.
            hidden_states: (batch, image tokens, channels).
            encoder_hidden_states: (batch, text tokens, channels).
            attention_mask: None wherever the context has a table.
            image_rotary_emb: cosines and sines, (text and image tokens, head_dim) each, every
                value twice.

        Returns:
            Image and text, shaped like the inputs.
        """
        if not self.context.tables:
            out: tuple[torch.Tensor, torch.Tensor] = self.stock(
                attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
            )
            return out
        fused = attn.fused_projections
        rope = rope_of(image_rotary_emb, hidden_states.device)
        both = self.attend(
            *joint_inputs(
                attn, hidden_states, encoder_hidden_states, rope, text_first=True, fused=fused
            )
        )
        tokens = encoder_hidden_states.shape[1]
        hidden_states = attn.to_out[0](both[:, tokens:])
        hidden_states = attn.to_out[1](hidden_states)
        return hidden_states, attn.to_add_out(both[:, :tokens])


class ParallelProcessor(SparseProcessor):
    """The attention of single-stream blocks, and the MLP that they run beside it."""

    stands_in_for: ClassVar[tuple[str, ...]] = ("Flux2ParallelSelfAttnProcessor",)

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Stock attention while the context has no table, else block-sparse attention.

        Args:
            attn: the `Flux2ParallelSelfAttention` module.
            hidden_states: (batch, text and image tokens, channels).
            attention_mask: None wherever the context has a table.
            image_rotary_emb: as for dual-stream blocks.

        Returns:
            (batch, text and image tokens, channels).
        """
        if not self.context.tables:
            out: torch.Tensor = self.stock(attn, hidden_states, attention_mask, image_rotary_emb)
            return out
        whole = attn.to_qkv_mlp_proj(hidden_states)
        mlp = attn.mlp_hidden_dim * attn.mlp_mult_factor
        *parts, inner = whole.split([attn.inner_dim] * 3 + [mlp], dim=-1)
        query, key, value = (part.unflatten(-1, (attn.heads, -1)) for part in parts)
        stream = Stream(query, key, value, attn.norm_q, attn.norm_k)
        rope = rope_of(image_rotary_emb, hidden_states.device)
        mixed = self.attend(*inputs_of([stream], rope))
        result: torch.Tensor = attn.to_out(torch.cat((mixed, attn.mlp_act_fn(inner)), dim=-1))
        return result


class Flux2(Family):
    """FLUX.2 text-to-image, with reference images, and inpainting."""

    classes: ClassVar[tuple[str, ...]] = ("Flux2Transformer2DModel",)
    processors: ClassVar[tuple[type[SparseProcessor], ...]] = (DualProcessor, ParallelProcessor)
    pipelines: ClassVar[tuple[str, ...]] = (
        "Flux2KleinInpaintPipeline",
        "Flux2KleinPipeline",
        "Flux2Pipeline",
    )
    dense_pipelines: ClassVar[Mapping[str, str]] = {
        "Flux2KleinKVPipeline": "the keys of reference images are cached, so that queries and keys "
        "are not the same tokens"
    }
    sparse: ClassVar[str] = (
        "joint attention of text and image in dual-stream and single-stream blocks; reference "
        "images of another size are exact"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "calls with an `attention_mask`: it hides tokens that a plan counts on",
        "calls where less than half the image tokens are one grid: too little could be left out",
    )

    def layers(self, transformer: torch.nn.Module) -> list[Any]:
        """Dual-stream blocks, then single-stream blocks."""
        blocks = (*transformer.transformer_blocks, *transformer.single_transformer_blocks)  # type: ignore[misc]
        return [block.attn for block in blocks]

    def output_weight(self, layer: Any) -> torch.Tensor | None:
        """Of single-stream blocks the part of the projection that attention goes through."""
        if isinstance(layer.to_out, torch.nn.ModuleList):
            return super().output_weight(layer)
        weight = weight_of(layer.to_out)
        return None if weight is None else weight[:, : layer.inner_dim]

    def grid(
        self, transformer: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> TokenGrid:
        """All text tokens, then the image and its references, as `img_ids` tells.

        References of the image's size are more frames, others count as text.
        """
        options = argument(args, kwargs, 6, "joint_attention_kwargs") or {}
        if options.get("attention_mask") is not None:
            raise Obstacle("joint_attention_kwargs holds an attention_mask")
        if argument(args, kwargs, 9, "kv_cache_mode") is not None:
            raise Obstacle(self.dense_pipelines["Flux2KleinKVPipeline"])
        raster = image_raster(argument(args, kwargs, 3, "img_ids"))
        if raster is None:
            raise Obstacle("less than half the image tokens are one grid, going by img_ids")
        text = argument(args, kwargs, 1, "encoder_hidden_states").shape[1]
        return TokenGrid(*raster.extents, before=text + raster.before, after=raster.after)


@read_once
def image_raster(img_ids: torch.Tensor) -> Raster | None:
    """The raster among the image tokens.

    Args:
        img_ids: (tokens, 4): t, h, w and one more for text, or (batch, tokens, 4), of which
            diffusers uses the first sample.
    """
    return raster_of((img_ids[0] if img_ids.ndim == 3 else img_ids)[:, :3])
