"""Kandinsky 5 (`Kandinsky5Transformer3DModel`): video tokens only, rotations as 2x2 matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ajour.grid import TokenGrid
from ajour.processors.base import Family, Obstacle, SparseProcessor, argument, weight_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


class Kandinsky5SparseProcessor(SparseProcessor):
    """Self-attention of a visual block through the layer's block table."""

    stands_in_for: ClassVar[tuple[str, ...]] = ("Kandinsky5AttnProcessor",)

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        rotary_emb: torch.Tensor | None = None,
        sparse_params: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        """Stock attention while the context has no table, else block-sparse attention.

        Args:
            attn: the `Kandinsky5Attention` module.
            hidden_states: (batch, tokens, channels).
            encoder_hidden_states: None, as in all self-attention.
            rotary_emb: (batch or 1, tokens, 1, head_dim / 2, 2, 2).
            sparse_params: None wherever the context has a table.

        Returns:
            (batch, tokens, channels).
        """
        if not self.context.tables:
            out: torch.Tensor = self.stock(
                attn, hidden_states, encoder_hidden_states, rotary_emb, sparse_params
            )
            return out
        query, key, value = (
            projection(hidden_states).unflatten(-1, (attn.num_heads, -1))
            for projection in (attn.to_query, attn.to_key, attn.to_value)
        )
        query = attn.query_norm(query.float()).type_as(query)
        key = attn.key_norm(key.float()).type_as(key)
        if rotary_emb is not None:
            query, key = turn(query, rotary_emb), turn(key, rotary_emb)
        result: torch.Tensor = attn.out_layer(self.attend(query, key, value))
        return result


class VisualAttention:
    """The attention of a visual block, under the names that other families' modules use.

    Args:
        module: the `Kandinsky5Attention`.
    """

    def __init__(self, module: Any) -> None:
        self.module = module

    @property
    def heads(self) -> int:
        """Number of heads."""
        return int(self.module.num_heads)

    @property
    def processor(self) -> Any:
        """The module's processor."""
        return self.module.processor

    @processor.setter
    def processor(self, value: Any) -> None:
        self.module.processor = value


class Kandinsky5(Family):
    """Kandinsky 5 text-to-video, image-to-video, text-to-image and image-to-image."""

    classes: ClassVar[tuple[str, ...]] = ("Kandinsky5Transformer3DModel",)
    processors: ClassVar[tuple[type[SparseProcessor], ...]] = (Kandinsky5SparseProcessor,)
    pipelines: ClassVar[tuple[str, ...]] = (
        "Kandinsky5I2IPipeline",
        "Kandinsky5I2VPipeline",
        "Kandinsky5T2IPipeline",
        "Kandinsky5T2VPipeline",
    )
    sparse: ClassVar[str] = "self-attention of every visual block"
    dense: ClassVar[tuple[str, ...]] = (
        "cross-attention to text and the text blocks: their sequences are short",
        "models set up for NABLA (`attention_type`): they bring their own sparse attention, which "
        "runs instead",
    )

    def layers(self, transformer: torch.nn.Module) -> list[Any]:
        """`self_attention` of every visual block."""
        blocks: Any = transformer.visual_transformer_blocks
        return [VisualAttention(block.self_attention) for block in blocks]

    def head_dim(self, transformer: torch.nn.Module) -> int:
        """Channels of a head: those of the three axes of the rotary embedding."""
        return int(sum(transformer.config.axes_dims))  # type: ignore[union-attr, arg-type]

    def output_weight(self, layer: Any) -> torch.Tensor | None:
        """Weight of `out_layer`."""
        return weight_of(layer.module.out_layer)

    def grid(
        self, transformer: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> TokenGrid:
        """(B, T, H, W, C) divided by the patch size."""
        if argument(args, kwargs, 7, "sparse_params") is not None:
            raise Obstacle("the model is set up for NABLA, its own sparse attention")
        latents = argument(args, kwargs, 0, "hidden_states")
        patch = transformer.config.patch_size  # type: ignore[union-attr]
        extents = [n // p for n, p in zip(latents.shape[1:4], patch, strict=True)]  # type: ignore[arg-type]
        return TokenGrid(*extents)


def turn(x: torch.Tensor, rotary_emb: torch.Tensor) -> torch.Tensor:
    """Rotary embedding as the stock processor has it: rounded to bfloat16 whatever the dtype.

    Args:
        x: (batch, tokens, heads, head_dim).
        rotary_emb: (batch or 1, tokens, 1, head_dim / 2, 2, 2).
    """
    pairs = x.float().unflatten(-1, (-1, 1, 2))
    return (rotary_emb * pairs).sum(dim=-1).flatten(-2).bfloat16().type_as(x)
