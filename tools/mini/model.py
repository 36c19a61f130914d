"""Builders of the mini Wan pipeline: every component, and the folder they are shipped in.

The pipeline has the architecture of Wan (causal video VAE, UMT5 text encoder, flow-matching
transformer with 3D RoPE) at about one thousandth of its size, so that it runs on a CPU.
"""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

FLOW_SHIFT = 2.0
"""Shift of the flow-matching noise levels in sampling, and in training at 3,328 tokens."""

VOCAB_SIZE = 1024
TEXT_DIM = 128
LATENT_CHANNELS = 16
SPATIAL_FACTOR = 8
TEMPORAL_FACTOR = 4
VAE_PATCH = 2
FIRST_LOG_VARIANCE = -6.0
MAX_FOLDER_BYTES = 32 * 2**20


def build_vae(
    latents_mean: Sequence[float] | None = None, latents_std: Sequence[float] | None = None
) -> AutoencoderKLWan:
    """Builds the causal video VAE: 8x in space (2x by pixel unshuffle), 4x in time.

    As in Wan 2.2, averaging shortcuts lead around every change of resolution; they carry the
    coarse colours from the first step on, which halves the training.

    Args:
        latents_mean: Measured mean of every latent channel; zeros when left out.
        latents_std: Measured standard deviation of every latent channel; ones when left out.

    Returns:
        A randomly initialised VAE in fp32.
    """
    pixels = 3 * VAE_PATCH**2
    vae = AutoencoderKLWan(
        base_dim=16,
        decoder_base_dim=16,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 4, 4],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=list(latents_mean or [0.0] * LATENT_CHANNELS),
        latents_std=list(latents_std or [1.0] * LATENT_CHANNELS),
        is_residual=True,
        in_channels=pixels,
        out_channels=pixels,
        patch_size=VAE_PATCH,
        scale_factor_temporal=TEMPORAL_FACTOR,
        scale_factor_spatial=SPATIAL_FACTOR,
    )
    # Almost no noise at first: with unit variance the decoder would learn to ignore the latents.
    with torch.no_grad():
        vae.quant_conv.weight[LATENT_CHANNELS:].mul_(0.1)
        vae.quant_conv.bias[LATENT_CHANNELS:].fill_(FIRST_LOG_VARIANCE)
    return vae


def _unshuffle(x: Tensor) -> Tensor:
    """Moves 2x2 pixel blocks to channels, (B,3,F,H,W) to (B,12,F,H/2,W/2), in the VAE's order."""
    b, c, f, h, w = x.shape
    p = VAE_PATCH
    x = x.reshape(b, c, f, h // p, p, w // p, p).permute(0, 1, 6, 4, 2, 3, 5)
    return x.reshape(b, c * p * p, f, h // p, w // p)


def _shuffle(x: Tensor) -> Tensor:
    """Inverse of `_unshuffle`."""
    b, c, f, h, w = x.shape
    p = VAE_PATCH
    x = x.reshape(b, c // p**2, p, p, f, h, w).permute(0, 1, 4, 5, 3, 6, 2)
    return x.reshape(b, c // p**2, f, h * p, w * p)


def encode_moments(vae: AutoencoderKLWan, video: Tensor) -> Tensor:
    """Encodes in two calls of the encoder instead of one per four frames.

    The convolutions are causal and the first frame stands alone, so [first frame, all others]
    gives what the VAE's own chunked loop gives, at a fraction of the kernel launches.

    Args:
        vae: The VAE.
        video: (B,3,F,H,W) in [-1,1] with F % 4 == 1.

    Returns:
        (B,32,1+(F-1)/4,H/8,W/8): mean and log-variance of the posterior.
    """
    pixels = _unshuffle(video)
    vae.clear_cache()
    parts = []
    for chunk in (pixels[:, :, :1], pixels[:, :, 1:]):
        if chunk.shape[2]:
            parts.append(vae.encoder(chunk, feat_cache=vae._enc_feat_map, feat_idx=[0]))
    vae.clear_cache()
    return vae.quant_conv(torch.cat(parts, dim=2))


def decode_video(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Decodes in two calls of the decoder, without the final clamp (see `encode_moments`).

    Args:
        vae: The VAE.
        latents: (B,16,T,h,w), not normalised.

    Returns:
        (B,3,1+4(T-1),8h,8w), about [-1,1].
    """
    hidden = vae.post_quant_conv(latents)
    vae.clear_cache()
    parts = []
    for index, chunk in enumerate((hidden[:, :, :1], hidden[:, :, 1:])):
        if chunk.shape[2]:
            parts.append(
                vae.decoder(chunk, feat_cache=vae._feat_map, feat_idx=[0], first_chunk=index == 0)
            )
    vae.clear_cache()
    return _shuffle(torch.cat(parts, dim=2))


def build_transformer() -> WanTransformer3DModel:
    """Builds the denoiser: 8 blocks of width 256 with 4 heads, about 10 M parameters."""
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=4,
        attention_head_dim=64,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=TEXT_DIM,
        freq_dim=256,
        ffn_dim=1024,
        num_layers=8,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        eps=1e-6,
        rope_max_seq_len=1024,
    )


def build_text_encoder() -> UMT5EncoderModel:
    """Builds the four-layer text encoder that is trained together with the transformer."""
    config = UMT5Config(
        vocab_size=VOCAB_SIZE,
        d_model=TEXT_DIM,
        d_kv=32,
        d_ff=256,
        num_layers=4,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    return UMT5EncoderModel(config)


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Trains a lower-casing byte-level BPE tokenizer that can spell any prompt.

    Args:
        texts: Training captions.

    Returns:
        A tokenizer with `<pad>` = 0, `</s>` = 1 (appended to every prompt) and `<unk>` = 2.
    """
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCAB_SIZE,
            special_tokens=["<pad>", "</s>", "<unk>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
        padding_side="right",
    )


def build_scheduler() -> UniPCMultistepScheduler:
    """Builds the sampler that stock Wan uses."""
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFT
    )


def embed_prompts(text_encoder: UMT5EncoderModel, ids: Tensor, mask: Tensor, length: int) -> Tensor:
    """Embeds tokens as `WanPipeline.encode_prompt` does: zeros after the true length.

    Args:
        text_encoder: The text encoder.
        ids: (B,L) token ids, padded on the right.
        mask: (B,L) attention mask.
        length: Sequence length of the result, at least L.

    Returns:
        (B,length,128) embeddings.

    Raises:
        ValueError: If `length` is shorter than the tokens.
    """
    if length < ids.shape[1]:
        raise ValueError(f"length must be at least {ids.shape[1]} (the tokens), got {length}")
    states = text_encoder(ids, mask).last_hidden_state * mask[..., None]
    return torch.nn.functional.pad(states, (0, 0, 0, length - ids.shape[1]))


def count_parameters(module: torch.nn.Module) -> int:
    """Counts the parameters of a module."""
    return sum(p.numel() for p in module.parameters())


def folder_bytes(path: Path) -> int:
    """Adds up the sizes of all files under a folder."""
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def assemble(
    vae: AutoencoderKLWan,
    text_encoder: UMT5EncoderModel,
    tokenizer: PreTrainedTokenizerFast,
    transformer: WanTransformer3DModel,
    path: str | Path,
) -> Path:
    """Writes the pipeline folder in fp16 and checks its size.

    Args:
        vae: VAE whose config holds the measured latent statistics.
        text_encoder: Trained text encoder.
        tokenizer: Its tokenizer.
        transformer: Trained transformer, not compiled.
        path: Folder to write; replaced when it holds a pipeline already.

    Returns:
        The folder.

    Raises:
        FileExistsError: If the folder exists and is not a pipeline.
        RuntimeError: If the folder is larger than 32 MB.
    """
    path = Path(path)
    if path.exists() and any(path.iterdir()):
        if not (path / "model_index.json").is_file():
            raise FileExistsError(f"{path} holds other files; give an empty or new folder")
        shutil.rmtree(path)
    halves = [copy.deepcopy(m).cpu().half() for m in (vae, text_encoder, transformer)]
    pipe = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=halves[1],
        vae=halves[0],
        scheduler=build_scheduler(),
        transformer=halves[2],
    )
    pipe.save_pretrained(path, safe_serialization=True)
    config = path / "vae" / "config.json"
    facts = json.loads(config.read_text())
    facts.pop("_name_or_path", None)  # where the training read it from
    config.write_text(json.dumps(facts, indent=2) + "\n")
    size = folder_bytes(path)
    print(f"{path}: {size / 2**20:.1f} MB", flush=True)
    if size > MAX_FOLDER_BYTES:
        raise RuntimeError(f"the pipeline must stay under 32 MB, got {size / 2**20:.1f} MB")
    return path
