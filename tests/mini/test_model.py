"""The mini pipeline's builders and the folder they are shipped in."""

import json

import numpy as np
import pytest
import torch
from diffusers import WanPipeline

from tools.mini import model

TEXTS = ["a red ball moves left", "a blue square turns on a green floor"] * 20


@pytest.mark.parametrize(
    ("builder", "low", "high"),
    [
        (model.build_vae, 2e6, 4e6),
        (model.build_transformer, 8e6, 11e6),
        (model.build_text_encoder, 2e5, 8e5),
    ],
)
def test_parameter_counts(builder, low, high):
    assert low <= model.count_parameters(builder()) <= high


@pytest.mark.parametrize("frames", [1, 5, 9, 17])
def test_two_chunks_equal_the_chunked_vae(frames):
    torch.manual_seed(0)
    vae = model.build_vae().eval()
    video = torch.rand(2, 3, frames, 32, 48) * 2 - 1
    with torch.no_grad():
        posterior = vae.encode(video).latent_dist
        moments = model.encode_moments(vae, video)
        assert posterior.mean.shape == (2, 16, 1 + (frames - 1) // 4, 4, 6)
        torch.testing.assert_close(moments[:, :16], posterior.mean, atol=1e-5, rtol=1e-4)
        expected = vae.decode(posterior.mean).sample
        decoded = model.decode_video(vae, posterior.mean).clamp(-1, 1)
    assert decoded.shape == video.shape
    torch.testing.assert_close(decoded, expected, atol=1e-5, rtol=1e-4)


def test_tokenizer_spells_any_prompt():
    tokenizer = model.build_tokenizer(TEXTS)
    assert len(tokenizer) <= model.VOCAB_SIZE
    assert tokenizer.pad_token_id == 0
    ids = tokenizer("Żółw 🐢 on ice").input_ids
    assert ids[-1] == 1
    assert 2 not in ids
    assert tokenizer("").input_ids[-1] == 1


def test_pipeline_folder(tmp_path):
    torch.manual_seed(0)
    tokenizer = model.build_tokenizer(TEXTS)
    vae = model.build_vae([0.1] * 16, [0.5] * 16)
    encoder = model.build_text_encoder()
    folder = model.assemble(vae, encoder, tokenizer, model.build_transformer(), tmp_path / "pipe")
    assert model.folder_bytes(folder) < model.MAX_FOLDER_BYTES
    assert json.loads((folder / "vae" / "config.json").read_text())["latents_std"] == [0.5] * 16

    pipe = WanPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    assert (pipe.vae_scale_factor_spatial, pipe.vae_scale_factor_temporal) == (8, 4)
    video = pipe(
        "a red ball",
        num_frames=5,
        height=32,
        width=32,
        num_inference_steps=2,
        guidance_scale=3.0,
        output_type="np",
        generator=torch.Generator().manual_seed(0),
    ).frames
    assert video.shape == (1, 5, 32, 32, 3)
    assert np.isfinite(video).all()

    tokens = pipe.tokenizer(
        ["a red ball"], padding="max_length", max_length=64, return_tensors="pt"
    )
    with torch.no_grad():
        mine = model.embed_prompts(pipe.text_encoder, tokens.input_ids, tokens.attention_mask, 512)
        stock, _ = pipe.encode_prompt(
            "a red ball", do_classifier_free_guidance=False, max_sequence_length=512
        )
    torch.testing.assert_close(mine, stock, atol=1e-5, rtol=1e-4)
