"""Tiny random transformers of the image families, and inputs for them."""

import warnings
from math import prod

import torch
from diffusers import (
    BriaFiboTransformer2DModel,
    BriaTransformer2DModel,
    ChromaTransformer2DModel,
    ErnieImageTransformer2DModel,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    HunyuanImageTransformer2DModel,
    JoyImageEditTransformer3DModel,
    Krea2Transformer2DModel,
    LongCatImageTransformer2DModel,
    NucleusMoEImageTransformer2DModel,
    OvisImageTransformer2DModel,
    PRXTransformer2DModel,
    QwenImageTransformer2DModel,
    ZImageTransformer2DModel,
)

from ajour import TokenGrid
from tests.processors.models.case import HEAD_DIM, HEADS, TEXT_DIM, Case, image_grid, raster
from tests.processors.models.video import wan_inputs


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


def flux2(**config):
    return Flux2Transformer2DModel(
        **{
            "in_channels": 8, "num_layers": 2, "num_single_layers": 2,
            "attention_head_dim": HEAD_DIM, "num_attention_heads": HEADS,
            "joint_attention_dim": TEXT_DIM, "timestep_guidance_channels": 8,
            "axes_dims_rope": (4, 4, 4, 4), "guidance_embeds": False,
        } | config
    )  # fmt: skip


def flux2_inputs(grid, text=7, batch=1):
    points = raster(grid)
    words = torch.arange(text)
    return {
        "hidden_states": torch.randn(batch, len(points), 8),
        "encoder_hidden_states": torch.randn(batch, text, TEXT_DIM),
        "timestep": torch.full((batch,), 0.5),
        "img_ids": torch.nn.functional.pad(points, (0, 1)).expand(batch, -1, -1),
        "txt_ids": torch.nn.functional.pad(words[:, None], (3, 0)).expand(batch, -1, -1),
    }


def qwen_image(**config):
    return QwenImageTransformer2DModel(
        **{
            "in_channels": 8, "out_channels": 2, "num_layers": 2, "attention_head_dim": HEAD_DIM,
            "num_attention_heads": HEADS, "joint_attention_dim": TEXT_DIM,
            "axes_dims_rope": (4, 6, 6),
        } | config
    )  # fmt: skip


def qwen_image_inputs(grid, text=7, batch=1):
    frames, height, width = grid
    return {
        "hidden_states": torch.randn(batch, frames * height * width, 8),
        "encoder_hidden_states": torch.randn(batch, text, TEXT_DIM),
        "encoder_hidden_states_mask": torch.ones(batch, text, dtype=torch.long),
        "timestep": torch.full((batch,), 0.5),
        "img_shapes": [[(1, height, width)] * frames] * batch,
    }


def z_image(**config):
    transformer = ZImageTransformer2DModel(
        **{
            "in_channels": 4, "dim": HEADS * HEAD_DIM, "n_layers": 2, "n_refiner_layers": 1,
            "n_heads": HEADS, "n_kv_heads": HEADS, "cap_feat_dim": TEXT_DIM,
            "axes_dims": [4, 6, 6], "axes_lens": [512, 64, 64],
        } | config
    )  # fmt: skip
    for token in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.normal_(token)
    return transformer


def z_image_inputs(grid, text=7, batch=1):
    frames, height, width = grid
    return {
        "x": [torch.randn(4, frames, 2 * height, 2 * width) for _ in range(batch)],
        "t": torch.full((batch,), 0.5),
        "cap_feats": [torch.randn(text, TEXT_DIM) for _ in range(batch)],
    }


def z_image_exact(grid, text):
    """Text and what fills up image and text to multiples of 32."""
    return -prod(grid) % 32 + text + -text % 32


def joyimage(**config):
    return JoyImageEditTransformer3DModel(
        **{
            "in_channels": 4, "hidden_size": HEADS * HEAD_DIM, "num_attention_heads": HEADS,
            "text_dim": TEXT_DIM, "num_layers": 2, "rope_dim_list": [4, 6, 6],
            "mlp_width_ratio": 2.0,
        } | config
    )  # fmt: skip


FLUX_KIN = {
    "in_channels": 8, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": HEAD_DIM,
    "num_attention_heads": HEADS, "joint_attention_dim": TEXT_DIM, "axes_dims_rope": (4, 6, 6),
}  # fmt: skip


def ovis_image(**config):
    return OvisImageTransformer2DModel(**FLUX_KIN | {"out_channels": 8} | config)


def longcat_image(**config):
    return LongCatImageTransformer2DModel(**FLUX_KIN | config)


def bria(**config):
    return BriaTransformer2DModel(**FLUX_KIN | config)


def bria_fibo(**config):
    return BriaFiboTransformer2DModel(**FLUX_KIN | {"text_encoder_dim": 8} | config)


def chroma(**config):
    sizes = {
        "approximator_num_channels": 8, "approximator_hidden_dim": 8, "approximator_layers": 1
    }  # fmt: skip
    with warnings.catch_warnings():  # diffusers uses what it calls deprecated
        warnings.simplefilter("ignore", FutureWarning)
        return ChromaTransformer2DModel(**FLUX_KIN | sizes | config)


def flux_kin_inputs(grid, text=7, batch=1):
    inputs = flux_inputs(grid, text, batch)
    del inputs["pooled_projections"]
    return inputs


def bria_fibo_inputs(grid, text=7, batch=1):
    """Every block has text of its own."""
    texts = [torch.randn(batch, text, 8) for _ in range(2)]
    return flux_kin_inputs(grid, text, batch) | {"text_encoder_layers": texts}


def hunyuan_image(**config):
    return HunyuanImageTransformer2DModel(
        **{
            "in_channels": 4, "out_channels": 4, "num_attention_heads": HEADS,
            "attention_head_dim": HEAD_DIM, "num_layers": 1, "num_single_layers": 1,
            "num_refiner_layers": 1, "mlp_ratio": 2.0, "patch_size": (1, 1, 1),
            "text_embed_dim": TEXT_DIM, "text_embed_2_dim": 8, "rope_axes_dim": (4, 6, 6),
        } | config
    )  # fmt: skip


def hunyuan_image_inputs(grid, text=7, batch=1):
    """A third of the text are glyphs."""
    glyphs = text // 3
    return {
        "hidden_states": torch.randn(batch, 4, *grid),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": torch.randn(batch, text - glyphs, TEXT_DIM),
        "encoder_attention_mask": torch.ones(batch, text - glyphs, dtype=torch.long),
        "encoder_hidden_states_2": torch.randn(batch, glyphs, 8),
        "encoder_attention_mask_2": torch.ones(batch, glyphs, dtype=torch.long),
    }


def krea2(**config):
    """Queries have twice as many heads as keys."""
    return Krea2Transformer2DModel(
        **{
            "in_channels": 4, "num_layers": 2, "attention_head_dim": HEAD_DIM,
            "num_attention_heads": HEADS, "num_key_value_heads": 1, "intermediate_size": 32,
            "timestep_embed_dim": 8, "text_hidden_dim": TEXT_DIM, "num_text_layers": 2,
            "text_num_attention_heads": 2, "text_num_key_value_heads": 2,
            "text_intermediate_size": 16, "num_layerwise_text_blocks": 1,
            "num_refiner_text_blocks": 1, "axes_dims_rope": (4, 6, 6),
        } | config
    )  # fmt: skip


def krea2_inputs(grid, text=7, batch=1):
    points = torch.cat((torch.zeros(text, 3), raster(grid).float()))
    return {
        "hidden_states": torch.randn(batch, len(points) - text, 4),
        "encoder_hidden_states": torch.randn(batch, text, 2, TEXT_DIM),
        "encoder_attention_mask": torch.ones(batch, text, dtype=torch.bool),
        "timestep": torch.full((batch,), 0.5),
        "position_ids": points,
    }


def krea2_fits(grid, text):
    """At least half the tokens have to be the image."""
    return prod(grid) >= text


def ernie_image(**config):
    transformer = ErnieImageTransformer2DModel(
        **{
            "hidden_size": HEADS * HEAD_DIM, "num_attention_heads": HEADS, "num_layers": 2,
            "ffn_hidden_size": 32, "in_channels": 4, "out_channels": 4, "text_in_dim": TEXT_DIM,
            "rope_axes_dim": (4, 6, 6),
        } | config
    )  # fmt: skip
    for layer in (transformer.adaLN_modulation[-1], transformer.final_linear):
        torch.nn.init.normal_(layer.weight, std=0.2)
    return transformer


def ernie_image_inputs(grid, text=7, batch=1):
    """Frames are below each other, at twice their width."""
    frames, height, width = grid
    return {
        "hidden_states": torch.randn(batch, 4, frames * height, 2 * width),
        "timestep": torch.full((batch,), 500.0),
        "text_bth": torch.randn(batch, text, TEXT_DIM),
        "text_lens": torch.full((batch,), text),
    }


def prx(**config):
    transformer = PRXTransformer2DModel(
        **{
            "in_channels": 4, "context_in_dim": TEXT_DIM, "hidden_size": HEADS * HEAD_DIM,
            "mlp_ratio": 2.0, "num_heads": HEADS, "depth": 2, "axes_dim": [8, 8],
        } | config
    )  # fmt: skip
    for name, parameter in transformer.named_parameters():
        if "modulation" in name:  # 0 at first, so that attention would change nothing
            torch.nn.init.normal_(parameter, std=0.2)
    return transformer


def prx_inputs(grid, text=7, batch=1):
    """Frames are below each other, at twice their width."""
    frames, height, width = grid
    return {
        "hidden_states": torch.randn(batch, 4, 2 * frames * height, 4 * width),
        "timestep": torch.full((batch,), 0.5),
        "encoder_hidden_states": torch.randn(batch, text, TEXT_DIM),
        "attention_mask": torch.ones(batch, text, dtype=torch.bool),
    }


def prx_grid(grid, text):
    """Text, then one image."""
    frames, height, width = grid
    return TokenGrid(1, frames * height, 2 * width, before=text)


def nucleus_moe(**config):
    """Queries have twice as many heads as keys. No experts: small errors would choose others."""
    sizes = {
        "in_channels": 8, "out_channels": 2, "num_layers": 2, "attention_head_dim": HEAD_DIM,
        "num_attention_heads": HEADS, "num_key_value_heads": 1, "joint_attention_dim": TEXT_DIM,
        "axes_dims_rope": (4, 6, 6), "mlp_ratio": 2.0, "moe_enabled": False,
    }  # fmt: skip
    with warnings.catch_warnings():  # layers of attention that diffusers does not use are empty
        warnings.simplefilter("ignore", UserWarning)
        return NucleusMoEImageTransformer2DModel(**sizes | config)


def nucleus_moe_inputs(grid, text=7, batch=1):
    inputs = qwen_image_inputs(grid, text, batch)
    return inputs | {"img_shapes": [grid] * batch}


IMAGE = {
    "Flux": Case(flux, flux_inputs, "before"),
    "Flux2": Case(flux2, flux2_inputs, "before"),
    "QwenImage": Case(qwen_image, qwen_image_inputs, "before"),
    "ZImage": Case(z_image, z_image_inputs, "after", z_image_exact),
    "JoyImageEdit": Case(joyimage, wan_inputs, "after", kin="Flux"),
    "OvisImage": Case(ovis_image, flux_kin_inputs, "before", kin="Flux"),
    "LongCatImage": Case(longcat_image, flux_kin_inputs, "before", kin="Flux"),
    "Bria": Case(bria, flux_kin_inputs, "before", kin="Flux"),
    "BriaFibo": Case(bria_fibo, bria_fibo_inputs, "before", kin="Flux"),
    "Chroma": Case(chroma, flux_kin_inputs, "before", kin="Flux"),
    "HunyuanImage": Case(hunyuan_image, hunyuan_image_inputs, "after", kin="HunyuanVideo"),
    "Krea2": Case(krea2, krea2_inputs, "before", fits=krea2_fits, kin="Flux"),
    "ErnieImage": Case(ernie_image, ernie_image_inputs, "after", grid_of=image_grid, kin="Flux"),
    "PRX": Case(prx, prx_inputs, "before", grid_of=prx_grid, kin="Flux"),
    "NucleusMoEImage": Case(nucleus_moe, nucleus_moe_inputs, "after", kin="QwenImage"),
}
