"""LTX-2 (`LTX2VideoTransformer3DModel`): video beside audio, norms across heads, gated heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ajour.grid import TokenGrid
from ajour.processors.base import Family, Obstacle, SparseProcessor, argument
from ajour.processors.host import read_once
from ajour.processors.projections import rotate, rotate_halves
from ajour.processors.raster import raster_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ajour.processors.raster import Raster

PERTURBED = "LTX2PerturbedAttnProcessor"
"""The stock processor of models that can shortcut attention for guidance."""


class LTX2SparseProcessor(SparseProcessor):
    """Self-attention of the video through the layer's block table."""

    stands_in_for: ClassVar[tuple[str, ...]] = ("LTX2AudioVideoAttnProcessor", PERTURBED)

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        query_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        key_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        perturbation_mask: torch.Tensor | None = None,
        all_perturbed: bool | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Stock attention while the context has no table, else block-sparse attention.

        Args:
            attn: the `LTX2Attention` module.
            hidden_states: (batch, tokens, channels).
            encoder_hidden_states: None, as in all self-attention.
            attention_mask: None wherever the context has a table.
            query_rotary_emb: cosines and sines, (batch, tokens, channels) each, every value twice,
                or (batch, heads, tokens, head_dim / 2) each, for the halves of each head.
            key_rotary_emb: None, as in all self-attention.
            perturbation_mask: (batch, 1, 1), 0 for samples whose values pass unmixed.
            all_perturbed: whether all samples' do, so that there is no attention.

        Returns:
            (batch, tokens, channels).
        """
        if not self.context.tables or bool(all_perturbed):
            options: dict[str, Any] = {}
            if type(self.stock).__name__ == PERTURBED:
                options = {"perturbation_mask": perturbation_mask, "all_perturbed": all_perturbed}
            out: torch.Tensor = self.stock(
                attn,
                hidden_states,
                encoder_hidden_states,
                attention_mask,
                query_rotary_emb,
                key_rotary_emb,
                **options,
            )
            return out
        query = attn.norm_q(attn.to_q(hidden_states))
        key = attn.norm_k(attn.to_k(hidden_states))
        value = attn.to_v(hidden_states)
        heads = (attn.heads, -1)
        if query_rotary_emb is not None and attn.rope_type == "interleaved":
            cosines, sines = (table[..., ::2] for table in query_rotary_emb)
            query, key = rotate(query, cosines, sines), rotate(key, cosines, sines)
        query, key = query.unflatten(2, heads), key.unflatten(2, heads)
        if query_rotary_emb is not None and attn.rope_type == "split":
            cosines, sines = (table.transpose(1, 2) for table in query_rotary_emb)
            query, key = rotate_halves(query, cosines, sines), rotate_halves(key, cosines, sines)
        mixed = self.attend(query, key, value.unflatten(2, heads))
        if perturbation_mask is not None:
            mixed = torch.lerp(value, mixed, perturbation_mask)
        if attn.to_gate_logits is not None:
            gates = 2 * torch.sigmoid(attn.to_gate_logits(hidden_states))
            mixed = (mixed.unflatten(2, heads) * gates[..., None]).flatten(2)
        hidden_states = attn.to_out[0](mixed)
        hidden_states = attn.to_out[1](hidden_states)
        return hidden_states


class LTX2(Family):
    """LTX-2 text-to-video, image-to-video, conditioned on frames, references and HDR."""

    classes: ClassVar[tuple[str, ...]] = ("LTX2VideoTransformer3DModel",)
    processors: ClassVar[tuple[type[SparseProcessor], ...]] = (LTX2SparseProcessor,)
    pipelines: ClassVar[tuple[str, ...]] = (
        "LTX2ConditionPipeline",
        "LTX2DFRPipeline",
        "LTX2DFRTemporalRefinePipeline",
        "LTX2HDRPipeline",
        "LTX2ImageToVideoPipeline",
        "LTX2InContextPipeline",
        "LTX2Pipeline",
    )
    sparse: ClassVar[str] = (
        "the video's self-attention (`attn1`) of every block; appended frames and references are "
        "exact"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "the audio's self-attention and all cross-attention: few tokens on one side",
        "calls with a `video_self_attention_mask`: it weakens single pairs of tokens",
        "calls where less than half the tokens are one video: too little could be left out",
    )

    def layers(self, transformer: torch.nn.Module) -> list[Any]:
        """`attn1` of every block; its five other attentions stay stock."""
        return [block.attn1 for block in transformer.transformer_blocks]  # type: ignore[union-attr]

    def grid(
        self, transformer: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> TokenGrid:
        """`num_frames`, `height` and `width`, or else the raster of `video_coords`.

        Appended keyframes and references lie around the raster and count as text.
        """
        if argument(args, kwargs, 22, "video_self_attention_mask") is not None:
            raise Obstacle("the call has a video_self_attention_mask")
        coordinates = argument(args, kwargs, 15, "video_coords")
        if coordinates is not None:
            raster = video_raster(coordinates)
            if raster is None:
                raise Obstacle("less than half the tokens are one video, going by video_coords")
            return TokenGrid(*raster.extents, before=raster.before, after=raster.after)
        config: Any = transformer.config
        patch = (config.patch_size_t, config.patch_size, config.patch_size)
        names = ("num_frames", "height", "width")
        sizes = [argument(args, kwargs, 10 + i, name) for i, name in enumerate(names)]
        return TokenGrid(*(-(-size // p) for size, p in zip(sizes, patch, strict=True)))


@read_once
def video_raster(video_coords: torch.Tensor) -> Raster | None:
    """The raster among the tokens; None also if samples differ.

    Args:
        video_coords: (batch, 3, tokens, 2): where each token starts and ends in t, h and w.
    """
    alike = bool((video_coords == video_coords[:1]).all())
    return raster_of(video_coords[0, :, :, 0].T) if alike else None
