"""Real configurations of transformers, random weights, and one call's arguments for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed

from ajour import TokenGrid

if TYPE_CHECKING:
    from collections.abc import Callable

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A model at a size.

    Attributes:
        transformer: name of the diffusers class, whose defaults hold where `config` is silent.
        layers: how many of each kind of layer are built; times are per built layer.
        grid: its token grid.
        inputs: makes one call's arguments on the default device, for this case.
        config: further arguments of the class.
        valid_text: text tokens that are not padding, where a mask hides padding.
    """

    transformer: str
    layers: dict[str, int]
    grid: TokenGrid
    inputs: Callable[[Case], Inputs]
    config: dict[str, Any] = field(default_factory=dict)
    valid_text: int = 100

    @property
    def depth(self) -> int:
        """Layers that are built."""
        return sum(self.layers.values())

    def build(self, dtype: torch.dtype, device: str, one_of_each: bool = False) -> torch.nn.Module:
        """The transformer; `one_of_each` kind of layer for checks."""
        torch.manual_seed(0)
        layers = dict.fromkeys(self.layers, 1) if one_of_each else self.layers
        with torch.device(device):
            model = getattr(diffusers, self.transformer)(**layers, **self.config)
        found: torch.nn.Module = model.to(dtype).eval().requires_grad_(False)
        return found

    def call(self, dtype: torch.dtype, device: str) -> Inputs:
        """Arguments in a dtype; places, times and masks keep theirs."""
        torch.manual_seed(1)
        with torch.device(device):
            found = self.inputs(self)
        kept = ("timestep", "guidance", "encoder_attention_mask", "image_rotary_emb")
        return {"return_dict": False} | {
            name: value if name in kept or name.endswith("ids") else value.to(dtype)
            for name, value in found.items()
        }


def wan(case: Case) -> Inputs:
    """Latents, a time step, 512 text tokens."""
    frames, height, width = case.grid.shape
    channels = case.config.get("in_channels", 16)
    return {
        "hidden_states": torch.randn(1, channels, frames, 2 * height, 2 * width),
        "timestep": torch.full((1,), 500.0),
        "encoder_hidden_states": torch.randn(1, 512, 4096),
    }


def hunyuan_video(case: Case) -> Inputs:
    """Latents, text with padding behind a mask, pooled text."""
    frames, height, width = case.grid.shape
    text = case.grid.after
    return {
        "hidden_states": torch.randn(1, 16, frames, 2 * height, 2 * width),
        "timestep": torch.full((1,), 500),
        "encoder_hidden_states": torch.randn(1, text, 4096),
        "encoder_attention_mask": (torch.arange(text) < case.valid_text).long()[None],
        "pooled_projections": torch.randn(1, 768),
        "guidance": torch.full((1,), 6000.0),
    }


def cogvideox(case: Case) -> Inputs:
    """Latents whose frames are paired, text in front, rotary tables."""
    frames, height, width = case.grid.shape
    tables = get_3d_rotary_pos_embed(
        64, ((0, 0), (height, width)), (height, width), frames, device=torch.zeros(()).device
    )
    return {
        "hidden_states": torch.randn(1, 2 * frames, 16, 2 * height, 2 * width),
        "encoder_hidden_states": torch.randn(1, case.grid.before, 4096),
        "timestep": torch.full((1,), 500),
        "image_rotary_emb": tables,
    }


def flux(case: Case) -> Inputs:
    """Packed latents with their places, text in front."""
    _, height, width = case.grid.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([torch.zeros_like(rows), rows, columns], -1).flatten(0, 1)
    return {
        "hidden_states": torch.randn(1, height * width, 64),
        "encoder_hidden_states": torch.randn(1, case.grid.before, 4096),
        "pooled_projections": torch.randn(1, 768),
        "timestep": torch.full((1,), 0.5),
        "guidance": torch.full((1,), 3.5),
        "img_ids": places.float(),
        "txt_ids": torch.zeros(case.grid.before, 3),
    }


CASES = {
    "wan2.1-1.3b-480p": Case(
        "WanTransformer3DModel", {"num_layers": 30}, TokenGrid(21, 30, 52), wan,
        {"num_attention_heads": 12, "ffn_dim": 8960},
    ),
    "wan2.1-14b-720p": Case(
        "WanTransformer3DModel", {"num_layers": 4}, TokenGrid(21, 45, 80), wan,
        {"num_attention_heads": 40, "ffn_dim": 13824},
    ),
    "wan2.2-5b-704p": Case(
        "WanTransformer3DModel", {"num_layers": 8}, TokenGrid(31, 22, 40), wan,
        {"num_attention_heads": 24, "ffn_dim": 14336, "in_channels": 48, "out_channels": 48},
    ),
    "hunyuanvideo-720p": Case(
        "HunyuanVideoTransformer3DModel", {"num_layers": 1, "num_single_layers": 2},
        TokenGrid(33, 45, 80, after=256), hunyuan_video, {"guidance_embeds": True},
    ),
    "cogvideox1.5-5b-81f": Case(
        "CogVideoXTransformer3DModel", {"num_layers": 4}, TokenGrid(11, 48, 85, before=226),
        cogvideox,
        {
            "num_attention_heads": 48, "patch_size_t": 2, "patch_bias": False,
            "use_rotary_positional_embeddings": True,
        },
    ),
    "flux-4k": Case(
        "FluxTransformer2DModel", {"num_layers": 1, "num_single_layers": 2},
        TokenGrid(1, 256, 256, before=512), flux, {"guidance_embeds": True},
    ),
}  # fmt: skip
"""By name; the few layers that are built keep the time of a benchmark in bounds."""
