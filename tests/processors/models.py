"""Tiny random transformers of every family, and inputs for them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import (
    CogVideoXTransformer3DModel,
    FluxTransformer2DModel,
    HunyuanVideoTransformer3DModel,
    LTXVideoTransformer3DModel,
    MochiTransformer3DModel,
    WanTransformer3DModel,
)
from diffusers.models.embeddings import get_3d_rotary_pos_embed

HEADS, HEAD_DIM, TEXT_DIM = 2, 16, 24


@dataclass(frozen=True)
class Case:
    """A family: `build(**config)` and `inputs(grid, text, batch)`; `text` where TokenGrid says."""

    build: Callable
    inputs: Callable
    text: str | None


def hunyuan_video(**config):
    return HunyuanVideoTransformer3DModel(
        **{
            "in_channels": 4, "out_channels": 4, "num_attention_heads": HEADS,
            "attention_head_dim": HEAD_DIM, "num_layers": 2, "num_single_layers": 2,
            "num_refiner_layers": 1, "patch_size": 2, "patch_size_t": 1, "guidance_embeds": False,
            "text_embed_dim": TEXT_DIM, "pooled_projection_dim": 8, "rope_axes_dim": (4, 6, 6),
            "mlp_ratio": 2.0,
        } | config
    )  # fmt: skip


def hunyuan_video_inputs(grid, text=7, batch=1):
    frames, height, width = grid
    return {
        "hidden_states": torch.randn(batch, 4, frames, 2 * height, 2 * width),
        "timestep": torch.full((batch,), 500),
        "encoder_hidden_states": torch.randn(batch, text, TEXT_DIM),
        "encoder_attention_mask": torch.ones(batch, text, dtype=torch.long),
        "pooled_projections": torch.randn(batch, 8),
    }


def cogvideox(**config):
    return CogVideoXTransformer3DModel(
        **{
            "num_attention_heads": HEADS, "attention_head_dim": HEAD_DIM, "in_channels": 4,
            "out_channels": 4, "time_embed_dim": 8, "text_embed_dim": TEXT_DIM, "num_layers": 2,
            "use_rotary_positional_embeddings": True,
        } | config
    )  # fmt: skip


def cogvideox_inputs(grid, text=7, batch=1, patch_frames=1):
    frames, height, width = grid
    shape = (frames * patch_frames, 4, 2 * height, 2 * width)
    rotary = get_3d_rotary_pos_embed(HEAD_DIM, ((0, 0), (height, width)), (height, width), frames)
    return {
        "hidden_states": torch.randn(batch, *shape),
        "encoder_hidden_states": torch.randn(batch, text, TEXT_DIM),
        "timestep": torch.full((batch,), 500),
        "image_rotary_emb": rotary,
    }


def cogvideox_15(**config):
    return cogvideox(patch_size_t=2, patch_bias=False, **config)


def cogvideox_15_inputs(grid, text=7, batch=1):
    return cogvideox_inputs(grid, text, batch, patch_frames=2)


def flux(**config):
    return FluxTransformer2DModel(
        **{
            "in_channels": 8, "num_layers": 2, "num_single_layers": 2,
            "attention_head_dim": HEAD_DIM, "num_attention_heads": HEADS,
            "joint_attention_dim": TEXT_DIM, "pooled_projection_dim": 8,
            "axes_dims_rope": (4, 6, 6),
        } | config
    )  # fmt: skip


def flux_inputs(grid, text=7, batch=1):
    points = raster(grid).float()
    return {
        "hidden_states": torch.randn(batch, len(points), 8),
        "encoder_hidden_states": torch.randn(batch, text, TEXT_DIM),
        "pooled_projections": torch.randn(batch, 8),
        "timestep": torch.full((batch,), 0.5),
        "img_ids": points,
        "txt_ids": torch.zeros(text, 3),
    }


def ltx(**config):
    return LTXVideoTransformer3DModel(
        **{
            "in_channels": 8, "out_channels": 8, "num_attention_heads": HEADS,
            "attention_head_dim": HEAD_DIM, "cross_attention_dim": HEADS * HEAD_DIM,
            "num_layers": 2, "caption_channels": TEXT_DIM,
        } | config
    )  # fmt: skip


def ltx_inputs(grid, text=7, batch=1):
    frames, height, width = grid
    return {
        "hidden_states": torch.randn(batch, frames * height * width, 8),
        "encoder_hidden_states": torch.randn(batch, text, TEXT_DIM),
        "timestep": torch.full((batch,), 500),
        "encoder_attention_mask": torch.ones(batch, text),
        "num_frames": frames,
        "height": height,
        "width": width,
        "rope_interpolation_scale": (8 / 25, 32, 32),
    }


def mochi(**config):
    transformer = MochiTransformer3DModel(
        **{
            "num_attention_heads": HEADS, "attention_head_dim": HEAD_DIM, "num_layers": 3,
            "pooled_projection_dim": 16, "in_channels": 4, "text_embed_dim": TEXT_DIM,
            "time_embed_dim": 8,
        } | config
    )  # fmt: skip
    torch.nn.init.normal_(transformer.pos_frequencies)
    return transformer


def mochi_inputs(grid, text=7, batch=1):
    frames, height, width = grid
    return {
        "hidden_states": torch.randn(batch, 4, frames, 2 * height, 2 * width),
        "encoder_hidden_states": torch.randn(batch, text, TEXT_DIM),
        "timestep": torch.full((batch,), 500),
        "encoder_attention_mask": torch.ones(batch, text, dtype=torch.bool),
    }


def wan(**config):
    return WanTransformer3DModel(
        **{
            "patch_size": (1, 2, 2), "num_attention_heads": HEADS, "attention_head_dim": HEAD_DIM,
            "in_channels": 4, "out_channels": 4, "text_dim": TEXT_DIM, "freq_dim": 8,
            "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32,
        } | config
    )  # fmt: skip


def wan_inputs(grid, text=7, batch=1):
    frames, height, width = grid
    return {
        "hidden_states": torch.randn(batch, 4, frames, 2 * height, 2 * width),
        "timestep": torch.full((batch,), 500),
        "encoder_hidden_states": torch.randn(batch, text, TEXT_DIM),
    }


def raster(grid):
    """(tokens, 3): where each token of a grid is."""
    return torch.cartesian_prod(*(torch.arange(n) for n in grid)).reshape(-1, 3)


CASES = {
    "Wan": Case(wan, wan_inputs, None),
    "HunyuanVideo": Case(hunyuan_video, hunyuan_video_inputs, "text_after"),
    "CogVideoX": Case(cogvideox, cogvideox_inputs, "text_before"),
    "CogVideoX15": Case(cogvideox_15, cogvideox_15_inputs, "text_before"),
    "Flux": Case(flux, flux_inputs, "text_before"),
    "LTX": Case(ltx, ltx_inputs, None),
    "Mochi": Case(mochi, mochi_inputs, "text_after"),
}
