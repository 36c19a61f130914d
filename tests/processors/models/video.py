"""Tiny random transformers of the video families, and inputs for them."""

from math import prod

import torch
from diffusers import (
    AnyFlowTransformer3DModel,
    ChronoEditTransformer3DModel,
    CogVideoXTransformer3DModel,
    ConsisIDTransformer3DModel,
    Cosmos3OmniTransformer,
    CosmosTransformer3DModel,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoFramepackTransformer3DModel,
    HunyuanVideoTransformer3DModel,
    Kandinsky5Transformer3DModel,
    Kandinsky6Transformer3DModel,
    LTX2VideoTransformer3DModel,
    LTXVideoTransformer3DModel,
    MiniMaxH3Transformer3DModel,
    MochiTransformer3DModel,
    MotifVideoTransformer3DModel,
    SkyReelsV2Transformer3DModel,
    WanAnimateTransformer3DModel,
    WanTransformer3DModel,
    WanVACETransformer3DModel,
)
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.modular_pipelines.minimax_h3 import before_denoise as minimax

from ajour import TokenGrid
from tests.processors.models.case import HEAD_DIM, HEADS, TEXT_DIM, Case, raster


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


def wan_i2v(**config):
    return wan(**{"image_dim": 8, "added_kv_proj_dim": HEADS * HEAD_DIM} | config)


def wan_i2v_inputs(grid, text=7, batch=1):
    # The stock processor takes the last 512 tokens to be text.
    inputs = wan_inputs(grid, 512, batch)
    inputs["encoder_hidden_states"][:, text:] = 0
    return inputs | {"encoder_hidden_states_image": torch.randn(batch, 5, 8)}


def wan_ti2v_inputs(grid, text=7, batch=1):
    frames, height, width = grid
    steps = torch.full((batch, frames * height * width), 500)
    steps[:, : height * width] = 0
    return wan_inputs(grid, text, batch) | {"timestep": steps}


def wan_vace(**config):
    return WanVACETransformer3DModel(
        **{
            "patch_size": (1, 2, 2), "num_attention_heads": HEADS, "attention_head_dim": HEAD_DIM,
            "in_channels": 4, "out_channels": 4, "text_dim": TEXT_DIM, "freq_dim": 8,
            "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32, "vace_layers": [0, 1],
            "vace_in_channels": 6,
        } | config
    )  # fmt: skip


def wan_vace_inputs(grid, text=7, batch=1):
    frames, height, width = grid
    control = torch.randn(batch, 6, frames, 2 * height, 2 * width)
    return wan_inputs(grid, text, batch) | {"control_hidden_states": control}


def wan_animate(**config):
    return WanAnimateTransformer3DModel(
        **{
            "patch_size": (1, 2, 2), "num_attention_heads": HEADS, "attention_head_dim": HEAD_DIM,
            "in_channels": 12, "latent_channels": 4, "out_channels": 4, "text_dim": TEXT_DIM,
            "freq_dim": 8, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32,
            "image_dim": None, "motion_encoder_channel_sizes": {"4": 4, "8": 4},
            "motion_encoder_size": 8, "motion_style_dim": 4, "motion_dim": 2,
            "motion_encoder_dim": 4, "face_encoder_hidden_dim": 8, "face_encoder_num_heads": 2,
            "inject_face_latents_blocks": 2,
        } | config
    )  # fmt: skip


def wan_animate_inputs(grid, text=7, batch=1):
    frames, height, width = grid
    return {
        "hidden_states": torch.randn(batch, 12, frames, 2 * height, 2 * width),
        "timestep": torch.full((batch,), 500),
        "encoder_hidden_states": torch.randn(batch, text, TEXT_DIM),
        "pose_hidden_states": torch.randn(batch, 4, frames - 1, 2 * height, 2 * width),
        "face_pixel_values": torch.rand(batch, 3, max(1, 4 * (frames - 1)), 8, 8),
    }


def skyreels_v2(**config):
    return SkyReelsV2Transformer3DModel(
        **{
            "patch_size": (1, 2, 2), "num_attention_heads": HEADS, "attention_head_dim": HEAD_DIM,
            "in_channels": 4, "out_channels": 4, "text_dim": TEXT_DIM, "freq_dim": 8,
            "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32,
        } | config
    )  # fmt: skip


def hunyuan_video15(**config):
    return HunyuanVideo15Transformer3DModel(
        **{
            "in_channels": 9, "out_channels": 4, "num_attention_heads": HEADS,
            "attention_head_dim": HEAD_DIM, "num_layers": 2, "num_refiner_layers": 1,
            "mlp_ratio": 2.0, "text_embed_dim": TEXT_DIM, "text_embed_2_dim": 8,
            "image_embed_dim": 8, "rope_axes_dim": (4, 6, 6),
        } | config
    )  # fmt: skip


def hunyuan_video15_inputs(grid, text=7, batch=1):
    """`text` counts glyphs and image tokens too, of which there are as many as there can be."""
    image = text // 3
    glyphs = text // 3
    return {
        "hidden_states": torch.randn(batch, 9, *grid),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": torch.randn(batch, text - image - glyphs, TEXT_DIM),
        "encoder_attention_mask": torch.ones(batch, text - image - glyphs, dtype=torch.long),
        "encoder_hidden_states_2": torch.randn(batch, glyphs, 8),
        "encoder_attention_mask_2": torch.ones(batch, glyphs, dtype=torch.long),
        "image_embeds": torch.randn(batch, image, 8),
    }


def ltx2(**config):
    return LTX2VideoTransformer3DModel(
        **{
            "in_channels": 4, "out_channels": 4, "num_attention_heads": HEADS,
            "attention_head_dim": HEAD_DIM, "cross_attention_dim": HEADS * HEAD_DIM,
            "audio_in_channels": 4, "audio_out_channels": 4, "audio_num_attention_heads": HEADS,
            "audio_attention_head_dim": 8, "audio_cross_attention_dim": HEADS * 8,
            "num_layers": 2, "caption_channels": TEXT_DIM, "norm_elementwise_affine": True,
        } | config
    )  # fmt: skip


def ltx2_inputs(grid, text=7, batch=1):
    frames, height, width = grid
    tokens = frames * height * width
    return {
        "hidden_states": torch.randn(batch, tokens, 4),
        "audio_hidden_states": torch.randn(batch, 6, 4),
        "encoder_hidden_states": torch.randn(batch, text, TEXT_DIM),
        "audio_encoder_hidden_states": torch.randn(batch, text, TEXT_DIM),
        "timestep": torch.full((batch, tokens), 500.0),
        "audio_timestep": torch.full((batch,), 500.0),
        "num_frames": frames,
        "height": height,
        "width": width,
        "audio_num_frames": 6,
    }


def kandinsky5(**config):
    """One block: rotation rounds to bfloat16, so a second would turn float32's ulp into steps."""
    transformer = Kandinsky5Transformer3DModel(
        **{
            "in_visual_dim": 4, "out_visual_dim": 4, "in_text_dim": TEXT_DIM, "in_text_dim2": 8,
            "time_dim": 16, "model_dim": HEADS * HEAD_DIM, "ff_dim": 32, "num_text_blocks": 1,
            "num_visual_blocks": 1, "axes_dims": (4, 6, 6),
        } | config
    )  # fmt: skip
    for name, parameter in transformer.named_parameters():
        if "modulation" in name:  # 0 at first, so that attention would change nothing
            torch.nn.init.normal_(parameter, std=0.2)
    return transformer


def kandinsky5_inputs(grid, text=7, batch=1):
    frames, height, width = grid
    return {
        "hidden_states": torch.randn(batch, frames, 2 * height, 2 * width, 4),
        "encoder_hidden_states": torch.randn(batch, text, TEXT_DIM),
        "timestep": torch.full((batch,), 500.0),
        "pooled_projections": torch.randn(batch, 8),
        "visual_rope_pos": [torch.arange(n) for n in grid],
        "text_rope_pos": torch.arange(text),
    }


def minimax_h3(**config):
    return MiniMaxH3Transformer3DModel(
        **{
            "num_attention_heads": HEADS, "attention_head_dim": HEAD_DIM, "hidden_size": 24,
            "num_layers": 2, "num_refiner_layers": 1, "ffn_dim": 32, "in_channels": 4,
            "audio_in_channels": 4, "text_dim": TEXT_DIM, "freq_dim": 8,
            "time_embed_hidden_dim": 8, "time_embed_dim": 8, "rope_freq_dim": 2,
        } | config
    )  # fmt: skip


def minimax_h3_inputs(grid, text=7, batch=1, anchors=()):
    """A packed sequence of text, a frame for each anchor, 3 tokens of stereo audio, and video."""
    frames, height, width = grid
    positions, tags, video, audio, words, conditions, _ = (
        minimax.MiniMaxH3PrepareLayoutStep.build_packed_sequence(
            torch.ones(text), frames, 2 * height, 2 * width, 3, (1, 2, 2), 2, 2, 0, anchors
        )
    )
    timestep, indices = minimax.MiniMaxH3SetTimestepsStep.build_row_timesteps(
        video, audio, conditions, 0, text, 0.3, 0.5, 0.999, 1.0
    )
    return {
        "hidden_states": torch.randn(batch, len(video), 16),
        "audio_hidden_states": torch.randn(batch, len(audio), 4),
        "encoder_hidden_states": torch.randn(batch, text, TEXT_DIM),
        "timestep": timestep,
        "timestep_indices": indices,
        "token_tags": tags,
        "position_ids": positions,
        "video_indices": video,
        "audio_indices": audio,
        "text_indices": words,
    }


def minimax_h3_exact(grid, text):
    """Text and audio."""
    return text + 6


def minimax_h3_fits(grid, text):
    """At least half the tokens have to be video."""
    return prod(grid) >= minimax_h3_exact(grid, text)


def chronoedit(**config):
    return ChronoEditTransformer3DModel(
        **{
            "patch_size": (1, 2, 2), "num_attention_heads": HEADS, "attention_head_dim": HEAD_DIM,
            "in_channels": 4, "out_channels": 4, "text_dim": TEXT_DIM, "freq_dim": 8,
            "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32,
        } | config
    )  # fmt: skip


def framepack(**config):
    return HunyuanVideoFramepackTransformer3DModel(
        **{
            "in_channels": 4, "out_channels": 4, "num_attention_heads": HEADS,
            "attention_head_dim": HEAD_DIM, "num_layers": 1, "num_single_layers": 1,
            "num_refiner_layers": 1, "guidance_embeds": False, "text_embed_dim": TEXT_DIM,
            "pooled_projection_dim": 8, "rope_axes_dim": (4, 6, 6), "mlp_ratio": 2.0,
            "image_proj_dim": 8, "has_image_proj": True, "has_clean_x_embedder": True,
        } | config
    )  # fmt: skip


HISTORY = {"latents_clean": 1, "latents_history_2x": 2, "latents_history_4x": 5}

"""Past frames of each kind."""


def framepack_inputs(grid, text=7, batch=1):
    """3 image tokens, and 8 past frames in three sizes."""
    frames, height, width = grid
    inputs = hunyuan_video_inputs(grid, text, batch) | {
        "image_embeds": torch.randn(batch, 3, 8),
        "indices_latents": torch.arange(8, 8 + frames),
    }
    for name, past in HISTORY.items():
        inputs[name] = torch.randn(batch, 4, past, 2 * height, 2 * width)
        inputs[f"indices_{name}"] = torch.arange(past)
    return inputs


def framepack_grid(grid, text):
    """Past frames take 1, 1/4 and 1/16 of a frame's tokens, of every 1, 2 and 4 frames."""
    _, height, width = grid
    past = height * width + -(-height // 2) * -(-width // 2) + 2 * -(-height // 4) * -(-width // 4)
    return TokenGrid(*grid, before=past, after=3 + text)


def kandinsky6(**config):
    return Kandinsky6Transformer3DModel(
        **{
            "in_visual_dim": 4, "out_visual_dim": 4, "in_text_dim": TEXT_DIM, "in_text_dim2": 8,
            "time_dim": 16, "model_dim": HEADS * HEAD_DIM, "ff_dim": 32, "num_text_blocks": 1,
            "num_visual_blocks": 1, "axes_dims": (4, 6, 6), "visual_cond": False,
            "in_audio_dim": 4, "out_audio_dim": 4, "ff_dim_a": 16, "ca_rope": True,
            "cross_gates": True, "fix_modulation": True,
        } | config
    )  # fmt: skip


def kandinsky6_inputs(grid, text=7, batch=1):
    frames, height, width = grid
    return {
        "hidden_states": torch.randn(batch, frames, 2 * height, 2 * width, 4),
        "audio_hidden_states": torch.randn(batch, 3, 4),
        "encoder_hidden_states": torch.randn(batch, text, TEXT_DIM),
        "timestep": torch.full((batch,), 500.0),
        "pooled_projections": torch.randn(batch, 8),
    }


def cosmos(**config):
    return CosmosTransformer3DModel(
        **{
            "in_channels": 4, "out_channels": 4, "num_attention_heads": HEADS,
            "attention_head_dim": HEAD_DIM, "num_layers": 2, "mlp_ratio": 2.0,
            "text_embed_dim": TEXT_DIM, "adaln_lora_dim": 4, "max_size": (16, 64, 64),
            "concat_padding_mask": False, "extra_pos_embed_type": None,
        } | config
    )  # fmt: skip


def motif_video(**config):
    return MotifVideoTransformer3DModel(
        **{
            "in_channels": 4, "out_channels": 4, "num_attention_heads": HEADS,
            "attention_head_dim": HEAD_DIM, "num_layers": 1, "num_single_layers": 1,
            "text_embed_dim": TEXT_DIM, "rope_axes_dim": (4, 6, 6), "mlp_ratio": 2.0,
        } | config
    )  # fmt: skip


def motif_video_inputs(grid, text=7, batch=1):
    inputs = hunyuan_video_inputs(grid, text, batch) | {"timestep": torch.full((batch,), 500.0)}
    del inputs["pooled_projections"]
    return inputs


def anyflow(**config):
    return AnyFlowTransformer3DModel(
        **{
            "num_attention_heads": HEADS, "attention_head_dim": HEAD_DIM, "in_channels": 4,
            "out_channels": 4, "text_dim": TEXT_DIM, "freq_dim": 8, "ffn_dim": 32,
            "num_layers": 2, "rope_max_seq_len": 32,
        } | config
    )  # fmt: skip


def anyflow_inputs(grid, text=7, batch=1):
    inputs = wan_inputs(grid, text, batch)
    steps = torch.full((batch, grid[0]), 500.0)
    states = inputs["hidden_states"].transpose(1, 2).contiguous()
    return inputs | {"hidden_states": states, "timestep": steps, "r_timestep": steps - 100}


def consisid(**config):
    return ConsisIDTransformer3DModel(
        **{
            "num_attention_heads": HEADS, "attention_head_dim": HEAD_DIM, "in_channels": 4,
            "out_channels": 4, "time_embed_dim": 8, "text_embed_dim": TEXT_DIM, "num_layers": 2,
            "use_rotary_positional_embeddings": True,
        } | config
    )  # fmt: skip


def cosmos3(**config):
    """Queries have twice as many heads as keys."""
    return Cosmos3OmniTransformer(
        **{
            "head_dim": HEAD_DIM, "hidden_size": 24, "intermediate_size": 32, "latent_channel": 4,
            "num_attention_heads": HEADS, "num_hidden_layers": 2, "num_key_value_heads": 1,
            "patch_latent_dim": 16, "rope_axes_dim": (4, 2, 2), "vocab_size": 32,
            "sound_dim": 4, "sound_gen": True,
        } | config
    )  # fmt: skip


def cosmos3_inputs(grid, text=7, batch=1):
    """One sample of text, video and 3 tokens of sound, whatever the batch."""
    frames, height, width = grid
    video, total = prod(grid), text + prod(grid) + 3
    words = torch.arange(text).expand(3, -1)
    sound = torch.arange(text, text + 3).expand(3, -1)
    return {
        "input_ids": torch.randint(32, (text,)),
        "text_indexes": torch.arange(text),
        "position_ids": torch.cat((words, text + raster(grid).T, sound), dim=1),
        "und_len": text,
        "sequence_length": total,
        "vision_tokens": [torch.randn(1, 4, frames, 2 * height, 2 * width)],
        "vision_token_shapes": [grid],
        "vision_sequence_indexes": torch.arange(text, text + video),
        "vision_mse_loss_indexes": torch.arange(text, text + video),
        "vision_timesteps": torch.full((video,), 500.0),
        "vision_noisy_frame_indexes": [torch.arange(frames)],
        "sound_tokens": [torch.randn(4, 3)],
        "sound_token_shapes": [(3, 1, 1)],
        "sound_sequence_indexes": torch.arange(total - 3, total),
        "sound_mse_loss_indexes": torch.arange(total - 3, total),
        "sound_timesteps": torch.full((3,), 500.0),
        "sound_noisy_frame_indexes": [torch.arange(3)],
    }


def cosmos3_grid(grid, text):
    """Text, video and sound."""
    return TokenGrid(*grid, before=text, after=3)


VIDEO = {
    "Wan": Case(wan, wan_inputs, None),
    "HunyuanVideo": Case(hunyuan_video, hunyuan_video_inputs, "after"),
    "CogVideoX": Case(cogvideox, cogvideox_inputs, "before"),
    "CogVideoX15": Case(cogvideox_15, cogvideox_15_inputs, "before"),
    "LTX": Case(ltx, ltx_inputs, None),
    "Mochi": Case(mochi, mochi_inputs, "after"),
    "WanI2V": Case(wan_i2v, wan_i2v_inputs, None),
    "WanTI2V": Case(wan, wan_ti2v_inputs, None, kin="Wan"),
    "WanVACE": Case(wan_vace, wan_vace_inputs, None),
    "WanAnimate": Case(wan_animate, wan_animate_inputs, None, fits=lambda grid, text: grid[0] > 1),
    "SkyReelsV2": Case(skyreels_v2, wan_inputs, None),
    "HunyuanVideo15": Case(hunyuan_video15, hunyuan_video15_inputs, "after"),
    "LTX2": Case(ltx2, ltx2_inputs, None),
    "Kandinsky5": Case(kandinsky5, kandinsky5_inputs, None),
    "ChronoEdit": Case(chronoedit, wan_inputs, None, kin="Wan"),
    "Framepack": Case(
        framepack, framepack_inputs, "after", grid_of=framepack_grid, kin="HunyuanVideo"
    ),
    "Kandinsky6": Case(kandinsky6, kandinsky6_inputs, None, kin="Kandinsky5"),
    "Cosmos": Case(cosmos, wan_inputs, None, kin="Wan"),
    "MotifVideo": Case(motif_video, motif_video_inputs, "after", kin="HunyuanVideo"),
    "AnyFlow": Case(anyflow, anyflow_inputs, None, kin="Wan"),
    "ConsisID": Case(consisid, cogvideox_inputs, "before", kin="CogVideoX"),
    "Cosmos3": Case(cosmos3, cosmos3_inputs, "before", grid_of=cosmos3_grid, kin="Wan"),
    "MiniMaxH3": Case(minimax_h3, minimax_h3_inputs, "before", minimax_h3_exact, minimax_h3_fits),
}
