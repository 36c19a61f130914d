"""FLUX.1 (`FluxTransformer2DModel`): text, then one image; two kinds of block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ajour.grid import TokenGrid
from ajour.processors.base import Family, Obstacle, SparseProcessor, argument
from ajour.processors.host import read_once
from ajour.processors.joint import inputs_of, joint_inputs, rope_of, stream_of
from ajour.processors.raster import raster_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from ajour.processors.raster import Raster


class FluxSparseProcessor(SparseProcessor):
    """Joint attention of text and image through the layer's block table."""

    stands_in_for: ClassVar[tuple[str, ...]] = ("FluxAttnProcessor",)

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Stock attention while the context has no table, else block-sparse attention.

        Args:
            attn: the `FluxAttention` module.
            hidden_states: (batch, image tokens, channels); in single-stream blocks text and image.
            encoder_hidden_states: (batch, text tokens, channels); None in single-stream blocks.
            attention_mask: None wherever the context has a table.
            image_rotary_emb: cosines and sines, (text and image tokens, head_dim) each, every
                value twice.

        Returns:
            Image and text, shaped like the inputs; in single-stream blocks one tensor.
        """
        if not self.context.tables:
            out: torch.Tensor | tuple[torch.Tensor, torch.Tensor] = self.stock(
                attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
            )
            return out
        fused = attn.fused_projections
        rope = rope_of(image_rotary_emb, hidden_states.device)
        if encoder_hidden_states is None:
            return self.attend(*inputs_of([stream_of(attn, hidden_states, fused=fused)], rope))
        both = self.attend(
            *joint_inputs(
                attn, hidden_states, encoder_hidden_states, rope, text_first=True, fused=fused
            )
        )
        text = encoder_hidden_states.shape[1]
        hidden_states = attn.to_out[0](both[:, text:])
        hidden_states = attn.to_out[1](hidden_states)
        return hidden_states, attn.to_add_out(both[:, :text])


class Flux(Family):
    """FLUX.1 text-to-image, image-to-image, fill, control and Kontext."""

    classes: ClassVar[tuple[str, ...]] = ("FluxTransformer2DModel",)
    processors: ClassVar[tuple[type[SparseProcessor], ...]] = (FluxSparseProcessor,)
    pipelines: ClassVar[tuple[str, ...]] = (
        "FluxControlImg2ImgPipeline",
        "FluxControlInpaintPipeline",
        "FluxControlNetImg2ImgPipeline",
        "FluxControlNetInpaintPipeline",
        "FluxControlNetPipeline",
        "FluxControlPipeline",
        "FluxFillPipeline",
        "FluxImg2ImgPipeline",
        "FluxInpaintPipeline",
        "FluxKontextInpaintPipeline",
        "FluxKontextPipeline",
        "FluxPipeline",
        "VisualClozeGenerationPipeline",
        "VisualClozePipeline",
    )
    sparse: ClassVar[str] = (
        "joint attention of text and image in dual-stream and single-stream blocks; reference "
        "images of another size are exact"
    )
    dense: ClassVar[tuple[str, ...]] = (
        "blocks with an IP-adapter: their processor adds attention to the image prompt",
        "calls with an `attention_mask`: it hides tokens that a plan counts on",
        "calls where less than half the image tokens are one grid: too little could be left out",
    )

    def layers(self, transformer: torch.nn.Module) -> list[Any]:
        """Dual-stream blocks, then single-stream blocks."""
        blocks = (*transformer.transformer_blocks, *transformer.single_transformer_blocks)  # type: ignore[misc]
        return [block.attn for block in blocks]

    def grid(
        self, transformer: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> TokenGrid:
        """All text tokens, then the image, whose extents only its position ids tell.

        Kontext puts a reference image after the image: two frames, if it has the same size, else
        its tokens count as text.
        """
        options = argument(args, kwargs, 7, "joint_attention_kwargs") or {}
        if options.get("attention_mask") is not None:
            raise Obstacle("joint_attention_kwargs holds an attention_mask")
        raster = image_raster(argument(args, kwargs, 4, "img_ids"))
        if raster is None:
            raise Obstacle("less than half the image tokens are one grid, going by img_ids")
        text = argument(args, kwargs, 1, "encoder_hidden_states").shape[1]
        return TokenGrid(*raster.extents, before=text + raster.before, after=raster.after)


@read_once
def image_raster(img_ids: torch.Tensor) -> Raster | None:
    """The raster among the image tokens.

    Args:
        img_ids: (tokens, 3), or (batch, tokens, 3), of which diffusers uses the first sample.
    """
    return raster_of(img_ids[0] if img_ids.ndim == 3 else img_ids)
