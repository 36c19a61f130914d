"""FLUX.2 (`Flux2Transformer2DModel`): text, then image, then references; two kinds of block.

The attention of single-stream blocks is one projection with their MLP, before and after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ajour.processors.base import Obstacle
from ajour.processors.flux import Flux
from ajour.processors.weights import weight_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ajour.grid import TokenGrid
    from ajour.processors.base import Call


class Flux2(Flux):
    """FLUX.2 text-to-image, with reference images, and inpainting."""

    classes: ClassVar[tuple[str, ...]] = ("Flux2Transformer2DModel",)
    processors: ClassVar[tuple[str, ...]] = ("Flux2AttnProcessor", "Flux2ParallelSelfAttnProcessor")
    pipelines: ClassVar[tuple[str, ...]] = (
        "Flux2KleinInpaintPipeline",
        "Flux2KleinPipeline",
        "Flux2Pipeline",
    )
    dense_pipelines: ClassVar[Mapping[str, str]] = {
        "Flux2KleinKVPipeline": "the keys of reference images are cached, so that queries and keys "
        "are not the same tokens"
    }
    dense: ClassVar[tuple[str, ...]] = Flux.dense[1:]

    def output_weight(self, layer: Any, out: torch.Tensor) -> torch.Tensor | None:
        """In single-stream blocks the part of the projection that attention goes through."""
        if isinstance(layer.to_out, torch.nn.ModuleList):
            return super().output_weight(layer, out)
        return weight_of(layer.to_out, out, others=layer.mlp_hidden_dim)

    def grid(self, call: Call) -> TokenGrid:
        """Same as FLUX.1's."""
        if call["kv_cache_mode"] is not None:
            raise Obstacle(self.dense_pipelines["Flux2KleinKVPipeline"])
        return super().grid(call)
