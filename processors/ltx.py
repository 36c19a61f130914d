"""LTX-Video (`LTXVideoTransformer3DModel`): video tokens only, norms across heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ajour.grid import TokenGrid
from ajour.processors.base import Family, Obstacle, SparseProcessor, argument
from ajour.processors.host import raster_extents, read_once
from ajour.processors.projections import rotate

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


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
    processor: ClassVar[type[SparseProcessor]] = LTXSparseProcessor

    def layers(self, transformer: torch.nn.Module) -> list[Any]:
        """`attn1` of every block; cross-attention (`attn2`) stays stock."""
        return [block.attn1 for block in transformer.transformer_blocks]  # type: ignore[union-attr]

    def grid(
        self, transformer: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> TokenGrid:
        """`num_frames`, `height` and `width`, or else the raster of `video_coords`."""
        coordinates = argument(args, kwargs, 8, "video_coords")
        if coordinates is not None:
            extents = video_extents(coordinates)
            if extents is None:
                raise Obstacle("video_coords is not one raster, as with frames to condition on")
            return TokenGrid(*extents)
        names = ("num_frames", "height", "width")
        return TokenGrid(*(argument(args, kwargs, 4 + i, name) for i, name in enumerate(names)))


@read_once
def video_extents(video_coords: torch.Tensor) -> tuple[int, int, int] | None:
    """(frames, height, width) of the video tokens, or None if they are not one raster.

    Args:
        video_coords: (batch, 3, tokens): t, h and w of each token, evenly spaced or not.
    """
    alike = bool((video_coords == video_coords[:1]).all())
    return raster_extents(video_coords[0].T) if alike else None
