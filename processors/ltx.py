"""LTX-Video (`LTXVideoTransformer3DModel`): video tokens only, norms across heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ajour.grid import TokenGrid
from ajour.processors.base import Family, Obstacle, SparseProcessor, argument
from ajour.processors.host import read_once
from ajour.processors.projections import rotate
from ajour.processors.raster import raster_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from ajour.processors.raster import Raster


class LTXSparseProcessor(SparseProcessor):
    """Self-attention of an LTX block through the layer's block table."""

    stands_in_for: ClassVar[tuple[str, ...]] = ("LTXVideoAttnProcessor",)

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Stock attention while the context has no table, else block-sparse attention.

        Args:
            attn: the `LTXAttention` module.
            hidden_states: (batch, tokens, channels).
            encoder_hidden_states: None, as in all self-attention.
            attention_mask: None, as in all of LTX's self-attention.
            image_rotary_emb: cosines and sines, (batch or 1, tokens, channels) each, every value
                twice: they rotate before the heads are split.

        Returns:
            (batch, tokens, channels).
        """
        if not self.context.tables:
            out: torch.Tensor = self.stock(
                attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
            )
            return out
        query = attn.norm_q(attn.to_q(hidden_states))
        key = attn.norm_k(attn.to_k(hidden_states))
        value = attn.to_v(hidden_states)
        if image_rotary_emb is not None:
            cosines, sines = (table[..., ::2] for table in image_rotary_emb)
            query, key = rotate(query, cosines, sines), rotate(key, cosines, sines)
        query, key, value = (x.unflatten(2, (attn.heads, -1)) for x in (query, key, value))
        hidden_states = attn.to_out[0](self.attend(query, key, value))
        hidden_states = attn.to_out[1](hidden_states)
        return hidden_states


class LTX(Family):
    """LTX-Video text-to-video, image-to-video and conditioned on frames."""

    classes: ClassVar[tuple[str, ...]] = ("LTXVideoTransformer3DModel",)
    processors: ClassVar[tuple[type[SparseProcessor], ...]] = (LTXSparseProcessor,)
    pipelines: ClassVar[tuple[str, ...]] = (
        "LTXConditionPipeline",
        "LTXI2VLongMultiPromptPipeline",
        "LTXImageToVideoPipeline",
        "LTXPipeline",
    )
    sparse: ClassVar[str] = (
        "self-attention (`attn1`) of every block; frames to condition on, appended or in front, "
        "are exact"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "cross-attention (`attn2`) to text: its keys are few",
        "calls where less than half the tokens are one video: too little could be left out",
    )

    def layers(self, transformer: torch.nn.Module) -> list[Any]:
        """`attn1` of every block; cross-attention (`attn2`) stays stock."""
        return [block.attn1 for block in transformer.transformer_blocks]  # type: ignore[union-attr]

    def grid(
        self, transformer: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> TokenGrid:
        """`num_frames`, `height` and `width`, or else the raster of `video_coords`.

        Frames to condition on lie around the raster and count as text.
        """
        coordinates = argument(args, kwargs, 8, "video_coords")
        if coordinates is not None:
            raster = video_raster(coordinates)
            if raster is None:
                raise Obstacle("less than half the tokens are one video, going by video_coords")
            return TokenGrid(*raster.extents, before=raster.before, after=raster.after)
        names = ("num_frames", "height", "width")
        return TokenGrid(*(argument(args, kwargs, 4 + i, name) for i, name in enumerate(names)))


@read_once
def video_raster(video_coords: torch.Tensor) -> Raster | None:
    """The raster among the tokens; None also if samples differ.

    Args:
        video_coords: (batch, 3, tokens): t, h and w of each token, evenly spaced or not.
    """
    alike = bool((video_coords == video_coords[:1]).all())
    return raster_of(video_coords[0].T) if alike else None
