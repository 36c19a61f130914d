"""Whole pipelines of every family, tiny and without text encoders, and what to call them with."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace

import torch
from diffusers import (
    AnyFlowPipeline,
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    BriaFiboPipeline,
    BriaPipeline,
    ChromaPipeline,
    ChronoEditPipeline,
    ClassifierFreeGuidance,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXPipeline,
    CogVideoXVideoToVideoPipeline,
    ConsisIDPipeline,
    Cosmos2TextToImagePipeline,
    Cosmos3OmniPipeline,
    CosmosTextToWorldPipeline,
    EDMEulerScheduler,
    ErnieImagePipeline,
    FlowMapEulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    FluxImg2ImgPipeline,
    FluxKontextPipeline,
    FluxPipeline,
    HunyuanImagePipeline,
    HunyuanVideo15Pipeline,
    HunyuanVideoFramepackPipeline,
    HunyuanVideoPipeline,
    JoyImageEditPipeline,
    Kandinsky5T2VPipeline,
    Kandinsky6TI2VAPipeline,
    Krea2Pipeline,
    LongCatImagePipeline,
    LTX2Pipeline,
    LTXConditionPipeline,
    LTXImageToVideoPipeline,
    LTXPipeline,
    MiniMaxH3Scheduler,
    MochiPipeline,
    MotifVideoPipeline,
    NucleusMoEImagePipeline,
    OvisImagePipeline,
    PRXPipeline,
    QwenImagePipeline,
    SkyReelsV2Pipeline,
    UniPCMultistepScheduler,
    WanAnimatePipeline,
    WanImageToVideoPipeline,
    WanPipeline,
    WanVACEPipeline,
    WanVideoToVideoPipeline,
    ZImageImg2ImgPipeline,
    ZImagePipeline,
)
from diffusers.modular_pipelines.minimax_h3.modular_blocks_minimax_h3 import (
    MiniMaxH3CoreDenoiseStep,
    MiniMaxH3FL2VACoreDenoiseStep,
)
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from PIL import Image
from transformers import BatchFeature

from tests.processors.families import make
from tests.processors.models import TEXT_DIM

EULER, TEXT, STEPS = FlowMatchEulerDiscreteScheduler, 11, 3
MOCHI = partial(EULER, invert_sigmas=True)
UNIPC = partial(
    UniPCMultistepScheduler, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
)
FRAME = {"height": 128, "width": 144}
VIDEO = FRAME | {"num_frames": 9}
PICTURE = {"height": 256, "width": 272}
LTX_VIDEO = {"height": 256, "width": 288, "num_frames": 17}


@dataclass(frozen=True)
class Run:
    """A pipeline, its call, and what is to be seen: grids, host reads, steps, what ran dense."""

    kind: type
    transformer: Callable
    scheduler: Callable
    options: Callable
    grids: set
    reads: int = 0
    modules: Callable = field(default=dict)
    steps: int = STEPS

    def build(self):
        """The pipeline, components that nobody gave being None."""
        parameters = dict(inspect.signature(self.kind.__init__).parameters)
        del parameters["self"]
        modules = {
            name: None if parameter.default is parameter.empty else parameter.default
            for name, parameter in parameters.items()
        }
        modules |= {"transformer": self.transformer(), "scheduler": self.scheduler()}
        pipe = self.kind(**modules | self.modules())
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def arguments(self):
        """What to call it with, but for the generator."""
        return self.options() | {"num_inference_steps": STEPS, "output_type": "latent"}


class ModularRun(Run):
    """A modular pipeline, made of the blocks that follow text encoders and precede decoders."""

    def build(self):
        """The pipeline with its components."""
        pipe = self.kind().init_pipeline()
        modules = {"transformer": self.transformer(), "scheduler": self.scheduler()}
        pipe.update_components(**modules | self.modules())
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def arguments(self):
        """What to call it with, but for the generator."""
        return self.options() | {"num_inference_steps": STEPS, "output": "latents"}


class Stub(torch.nn.Module):
    """Stands in for a VAE of which only attributes are read."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, config, **attributes):
        super().__init__()
        self.config = SimpleNamespace(**config)
        for name, value in attributes.items():
            setattr(self, name, value)


class ImageProcessor:
    """Stands in for CLIP's: nothing to give to the encoder."""

    def __call__(self, images, return_tensors, **_):
        return BatchFeature({})


class ImageEncoder(Stub):
    """Stands in for CLIP's vision model: 5 tokens."""

    def forward(self, **_):
        tokens = torch.ones(1, 5, 8)
        return SimpleNamespace(hidden_states=[tokens] * 2, last_hidden_state=tokens)


def masked(suffix="attention_mask", **lengths):
    """Prompts of 11 tokens, of which a mask keeps some; `negative=0` for none hidden."""
    options = {}
    for name, length in lengths.items():
        prefix = "negative_" if name == "negative" else ""
        options[f"{prefix}prompt_embeds"] = torch.randn(1, TEXT, TEXT_DIM)
        options[f"{prefix}prompt_{suffix}"] = (torch.arange(TEXT) < length)[None]
    return options


def unmasked(*names):
    return {f"{name}prompt_embeds": torch.randn(1, TEXT, TEXT_DIM) for name in names}


def pooled(*names):
    return {f"{name}pooled_prompt_embeds": torch.randn(1, 8) for name in names}


def texts(**lengths):
    """Z-Image's prompts: a list of one, as long as is said."""
    options = {}
    for name, length in lengths.items():
        prefix = "negative_" if name == "negative" else ""
        options[f"{prefix}prompt_embeds"] = [torch.randn(length, TEXT_DIM)]
    return options


def packed(**options):
    """What MiniMax-H3's blocks are called with: 37 latent frames, as few as it allows."""
    text = {"prompt_embeds": torch.randn(1, TEXT, TEXT_DIM), "text_token_tags": torch.ones(TEXT)}
    video = {"height": 128, "width": 160, "num_frames": 124}
    return text | video | options


def minimax_h3():
    return make("MiniMaxH3", in_channels=24, audio_in_channels=32)


def minimax_h3_modules():
    return {"audio_scheduler": MiniMaxH3Scheduler(3.0)}


def glyphs(*names):
    """The second prompt of HunyuanVideo-1.5: 2 of 4 tokens."""
    options = {}
    for name in names:
        options[f"{name}prompt_embeds_2"] = torch.randn(1, 4, 8)
        options[f"{name}prompt_embeds_mask_2"] = (torch.arange(4) < 2)[None]
    return options


def kandinsky_prompts(*names):
    options = {}
    for name in names:
        options[f"{name}prompt_embeds_qwen"] = torch.randn(1, TEXT, TEXT_DIM)
        options[f"{name}prompt_embeds_clip"] = torch.randn(1, 8)
        options[f"{name}prompt_cu_seqlens"] = torch.tensor([0, TEXT], dtype=torch.int32)
    return options


def image(height=128, width=144):
    return Image.new("RGB", (width, height), (90, 20, 200))


def wan_vae(**config):
    """8 x 8 pixels and 4 frames a latent, as Wan 2.1's, on patches of 2 x 2 pixels: less work."""
    patches = {
        "dim_mult": [1, 1, 1], "temperal_downsample": [True, True], "patch_size": 2,
        "in_channels": 12, "out_channels": 12,
    }  # fmt: skip
    statistics = {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    size = {"base_dim": 4, "z_dim": 4, "num_res_blocks": 1}
    return {"vae": AutoencoderKLWan(**size | statistics | (config or patches))}


def wan_vae_of_pixels():
    """For pipelines that count the VAE's levels to know its factor."""
    return wan_vae(dim_mult=[1, 1, 1, 1], temperal_downsample=[False, True, True])


def wan_animate_modules():
    return wan_vae() | {"image_processor": ImageProcessor(), "image_encoder": ImageEncoder({})}


def cogvideox_vae():
    return {
        "vae": AutoencoderKLCogVideoX(
            latent_channels=4, block_out_channels=(8,) * 4, layers_per_block=1, norm_num_groups=2
        )
    }


def flux_vae():
    return {
        "vae": AutoencoderKL(
            latent_channels=4, block_out_channels=(8,) * 4, norm_num_groups=4, shift_factor=0.0,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )
    }  # fmt: skip


def ltx_vae():
    return {
        "vae": AutoencoderKLLTXVideo(
            block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4, latent_channels=8
        )
    }


def klein_vae():
    config = {"batch_norm_eps": 1e-4, "block_out_channels": (1,) * 4}
    return {"vae": Stub(config, bn=torch.nn.BatchNorm2d(8))}


def hunyuan_video15_modules():
    ratios = {"temporal_compression_ratio": 4, "spatial_compression_ratio": 16}
    return {
        "vae": Stub({"latent_channels": 4}, **ratios),
        "guider": ClassifierFreeGuidance(guidance_scale=3.0),
    }


def ltx2_modules():
    audio = {"mel_bins": 64, "latent_channels": 8, "sample_rate": 16000, "mel_hop_length": 160}
    connector = {
        f"{kind}_connector_{name}": value
        for kind in ("video", "audio")
        for name, value in {
            "num_attention_heads": 2,
            "attention_head_dim": TEXT_DIM // 2,
            "num_layers": 1,
            "num_learnable_registers": None,
        }.items()
    }
    return {
        "vae": Stub(
            {"scaling_factor": 1.0}, spatial_compression_ratio=32, temporal_compression_ratio=8,
            latents_mean=torch.zeros(4), latents_std=torch.ones(4),
        ),
        "audio_vae": Stub(
            audio, mel_compression_ratio=4, temporal_compression_ratio=4,
            latents_mean=torch.zeros(128), latents_std=torch.ones(128),
        ),
        "connectors": LTX2TextConnectors(
            caption_channels=TEXT_DIM, text_proj_in_factor=1, connector_rope_base_seq_len=32,
            **connector,
        ),
    }  # fmt: skip


def kandinsky6_prompts(*names):
    return {f"{name}prompt_embeds": torch.randn(1, TEXT, TEXT_DIM) for name in names} | pooled(
        *names
    )


class Encoder(Stub):
    """Stands in for a VAE that encodes an image or a video."""

    def encode(self, x):
        batch, _, frames, height, width = x.shape
        latents = torch.ones(batch, 4, (frames - 1) // 4 + 1, height // 8, width // 8)
        return SimpleNamespace(
            latent_dist=SimpleNamespace(sample=lambda **_: latents, mode=lambda: latents)
        )


def chronoedit_modules():
    config = {
        "z_dim": 4, "scale_factor_temporal": 4, "scale_factor_spatial": 8,
        "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4,
    }  # fmt: skip
    return {
        "vae": Encoder(config), "image_encoder": ImageEncoder({}),
        "image_processor": ImageProcessor(),
    }  # fmt: skip


class Framepack(HunyuanVideoFramepackPipeline):
    """Its sections are a list; the tests compare one tensor."""

    def __call__(self, **options):
        return (torch.cat(super().__call__(**options).frames, dim=2),)


class Cosmos3(Cosmos3OmniPipeline):
    """Its prompts are numbers of words already."""

    def tokenize_prompt(self, prompt, negative_prompt, **_):
        return list(range(len(prompt))), list(range(len(negative_prompt)))


def cosmos3_modules():
    config = {
        "z_dim": 4, "scale_factor_temporal": 4, "scale_factor_spatial": 8,
        "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4,
    }  # fmt: skip
    words = Stub({}, convert_tokens_to_ids=lambda _: 1, eos_token_id=2)
    return {"vae": Encoder(config), "text_tokenizer": words, "enable_safety_checker": False}


class LongCat(LongCatImagePipeline):
    """Takes embeddings, which its own code counts as prompts that are not there."""

    def encode_prompt(self, prompt, prompt_embeds, **_):
        places = torch.arange(TEXT)
        return prompt_embeds, torch.stack((0 * places, places, places), dim=1)


def bria_modules():
    return {"vae": Stub({"shift_factor": 0.0, "block_out_channels": (1,) * 4})}


class Words(Stub):
    """Stands in for a tokenizer and its text model: one token for every letter."""

    def __call__(self, texts, attention_mask=None, **_):
        if attention_mask is not None:
            layer = texts[..., None].expand(-1, -1, 12).float().cos()
            return SimpleNamespace(hidden_states=(layer,) * 3)
        ids = torch.tensor([[ord(letter) for letter in text] for text in texts])
        return SimpleNamespace(input_ids=ids, attention_mask=torch.ones_like(ids))


def fibo_modules():
    return {"tokenizer": Words({}), "text_encoder": Words({})}


def framepack_modules():
    ratios = {"temporal_compression_ratio": 4, "spatial_compression_ratio": 8}
    return {
        "vae": Encoder({"scaling_factor": 1.0}, **ratios),
        "image_encoder": ImageEncoder({}),
        "feature_extractor": ImageProcessor(),
    }


def kandinsky6_modules():
    audio = Stub({"sample_rate": 16000}, latent_hop_length=1024)
    return {"audio_vae": audio, "vocoder": Stub({})}


def motif_video_modules():
    return {
        "vae": Stub({"z_dim": 4, "scale_factor_temporal": 4, "scale_factor_spatial": 8}),
        "guider": ClassifierFreeGuidance(guidance_scale=3.0),
    }


class SafetyChecker:
    """Stands in for the guardrail, which is another package: pictures pass as they are."""

    def to(self, *_):
        """Nowhere to go."""


def cosmos_modules():
    config = {"temporal_compression_ratio": 4, "spatial_compression_ratio": 8}
    vae = Stub(config, temperal_downsample=[False, True, True])
    return {"vae": vae, "safety_checker": SafetyChecker()}


PIPELINES = {
    "Wan": Run(
        WanPipeline, lambda: make("Wan"), UNIPC, lambda: VIDEO | unmasked("", "negative_"),
        {"3x8x9"},
    ),
    "Wan in two stages": Run(
        WanPipeline, lambda: make("Wan"), UNIPC, lambda: VIDEO | unmasked("", "negative_"),
        {"3x8x9"},
        modules=lambda: {"transformer_2": make("Wan", seed=1), "boundary_ratio": 0.9},
    ),
    "Wan TI2V with an image": Run(
        WanImageToVideoPipeline, lambda: make("Wan"), UNIPC,
        lambda: VIDEO | unmasked("") | {"image": image(), "guidance_scale": 1.0}, {"3x8x9"},
        modules=lambda: wan_vae() | {"expand_timesteps": True},
    ),
    "Wan image to video": Run(
        WanImageToVideoPipeline, lambda: make("Wan", in_channels=12), UNIPC,
        lambda: VIDEO | unmasked("") | {"image": image(), "guidance_scale": 1.0}, {"3x8x9"},
        modules=wan_vae,
    ),
    "Wan video to video": Run(
        WanVideoToVideoPipeline, lambda: make("Wan"), UNIPC,
        lambda: FRAME | unmasked("") | {"video": [image()] * 9, "strength": 0.8,
        "guidance_scale": 1.0}, {"3x8x9"}, modules=wan_vae_of_pixels, steps=STEPS - 1,
    ),
    "Wan VACE": Run(
        WanVACEPipeline, lambda: make("WanVACE", vace_in_channels=2 * 4 + 64), UNIPC,
        lambda: VIDEO | unmasked("") | {"reference_images": [image()], "guidance_scale": 1.0},
        {"4x8x9"}, modules=wan_vae_of_pixels,
    ),
    "Wan Animate": Run(
        WanAnimatePipeline,
        lambda: make("WanAnimate", image_dim=8, added_kv_proj_dim=32), UNIPC,
        lambda: FRAME | {
            "image": image(), "pose_video": [image()] * 17, "face_video": [image(8, 8)] * 17,
            "segment_frame_length": 9, "prev_segment_conditioning_frames": 1,
            "prompt_embeds": torch.randn(1, 512, TEXT_DIM), "guidance_scale": 1.0,
        },
        {"4x8x9"}, modules=wan_animate_modules, steps=2 * STEPS,
    ),
    "SkyReels-V2": Run(
        SkyReelsV2Pipeline, lambda: make("SkyReelsV2"), UNIPC,
        lambda: VIDEO | unmasked("", "negative_"), {"3x8x9"},
    ),
    "ChronoEdit": Run(
        ChronoEditPipeline,
        lambda: make("ChronoEdit", in_channels=12, image_dim=8, added_kv_proj_dim=32), UNIPC,
        lambda: FRAME | {
            "image": image(), "num_frames": 17, "prompt_embeds": torch.randn(1, 512, TEXT_DIM),
            "guidance_scale": 1.0, "enable_temporal_reasoning": True,
            "num_temporal_reasoning_steps": 1,
        },
        {"5x8x9", "2x8x9"}, modules=chronoedit_modules,
    ),
    "AnyFlow": Run(
        AnyFlowPipeline, lambda: make("AnyFlow"), FlowMapEulerDiscreteScheduler,
        lambda: VIDEO | unmasked("", "negative_"), {"3x8x9"},
    ),
    "Cosmos 3 with guidance": Run(
        Cosmos3, lambda: make("Cosmos3", sound_gen=False), UNIPC,
        lambda: VIDEO | {"prompt": "a red circle", "negative_prompt": "blur"},
        {"3x8x9 + 12 exact", "3x8x9 + 4 exact"}, modules=cosmos3_modules,
    ),
    "Cosmos": Run(
        CosmosTextToWorldPipeline, lambda: make("Cosmos", extra_pos_embed_type="learnable"),
        EDMEulerScheduler, lambda: VIDEO | unmasked("", "negative_"), {"3x8x9"},
        modules=cosmos_modules,
    ),
    "Cosmos 2 image": Run(
        Cosmos2TextToImagePipeline, lambda: make("Cosmos"), partial(EULER, use_karras_sigmas=True),
        lambda: PICTURE | unmasked("") | {"guidance_scale": 1.0}, {"1x16x17"},
        modules=cosmos_modules,
    ),
    "FramePack": Run(
        Framepack, lambda: make("Framepack", guidance_embeds=True), EULER,
        lambda: FRAME | masked(prompt=5) | pooled("")
        | {"image": image(), "num_frames": 26, "latent_window_size": 4},
        {"4x8x9 + 198 exact"}, 1, modules=framepack_modules, steps=2 * STEPS,
    ),
    "HunyuanVideo": Run(
        HunyuanVideoPipeline, lambda: make("HunyuanVideo"), EULER,
        lambda: VIDEO | masked(prompt=5) | pooled(""), {"3x8x9 + 5 exact"}, 1,
    ),
    "HunyuanVideo with guidance": Run(
        HunyuanVideoPipeline, lambda: make("HunyuanVideo"), EULER,
        lambda: VIDEO | masked(prompt=5, negative=2) | pooled("", "negative_")
        | {"true_cfg_scale": 3.0},
        {"3x8x9 + 5 exact", "3x8x9 + 2 exact"}, 2,
    ),
    "HunyuanVideo-1.5 with guidance": Run(
        HunyuanVideo15Pipeline, lambda: make("HunyuanVideo15"), EULER,
        lambda: VIDEO | masked("embeds_mask", prompt=5, negative=3) | glyphs("", "negative_"),
        {"3x8x9 + 7 exact", "3x8x9 + 5 exact"}, 5, modules=hunyuan_video15_modules,
    ),
    "CogVideoX": Run(
        CogVideoXPipeline, lambda: make("CogVideoX"), CogVideoXDDIMScheduler,
        lambda: VIDEO | unmasked("", "negative_"), {"3x8x9 + 11 exact"},
    ),
    "CogVideoX 1.5": Run(
        CogVideoXPipeline, lambda: make("CogVideoX15"), CogVideoXDPMScheduler,
        lambda: VIDEO | unmasked("", "negative_"), {"2x8x9 + 11 exact"},
    ),
    "CogVideoX image to video": Run(
        CogVideoXImageToVideoPipeline, lambda: make("CogVideoX", in_channels=8),
        CogVideoXDDIMScheduler, lambda: VIDEO | unmasked("", "negative_") | {"image": image()},
        {"3x8x9 + 11 exact"}, modules=cogvideox_vae,
    ),
    "CogVideoX video to video": Run(
        CogVideoXVideoToVideoPipeline, lambda: make("CogVideoX"), CogVideoXDDIMScheduler,
        lambda: FRAME | unmasked("", "negative_") | {"video": [image()] * 9, "strength": 0.8},
        {"3x8x9 + 11 exact"}, modules=cogvideox_vae, steps=STEPS - 1,
    ),
    "ConsisID": Run(
        ConsisIDPipeline, lambda: make("ConsisID", in_channels=8), CogVideoXDDIMScheduler,
        lambda: VIDEO | unmasked("", "negative_") | {"image": image()}, {"3x8x9 + 11 exact"},
        modules=cogvideox_vae,
    ),
    "LTX": Run(
        LTXPipeline, lambda: make("LTX"), EULER,
        lambda: LTX_VIDEO | masked(prompt=5, negative=2), {"3x8x9"},
    ),
    "LTX conditions": Run(
        LTXConditionPipeline, lambda: make("LTX"), EULER,
        lambda: LTX_VIDEO | masked(prompt=5, negative=2), {"3x8x9"}, 1, modules=ltx_vae,
    ),
    "LTX image to video": Run(
        LTXImageToVideoPipeline, lambda: make("LTX"), EULER,
        lambda: LTX_VIDEO | masked(prompt=5, negative=2) | {"image": image(256, 288)},
        {"3x8x9"}, modules=ltx_vae,
    ),
    "LTX-2 with guidance": Run(
        LTX2Pipeline,
        lambda: make("LTX2", audio_in_channels=128, audio_out_channels=128), EULER,
        lambda: LTX_VIDEO | masked(prompt=11, negative=11) | {"guidance_scale": 3.0},
        {"3x8x9"}, 2, modules=ltx2_modules,
    ),
    "Mochi with guidance": Run(
        MochiPipeline, lambda: make("Mochi"), MOCHI,
        lambda: VIDEO | {"num_frames": 13} | masked(prompt=5, negative=2),
        {"3x8x9 + 2 exact"}, 1,
    ),
    "Kandinsky 5": Run(
        Kandinsky5T2VPipeline, lambda: make("Kandinsky5", visual_cond=True), EULER,
        lambda: VIDEO | kandinsky_prompts("", "negative_"), {"3x8x9"},
    ),
    "Kandinsky 6 with guidance": Run(
        Kandinsky6TI2VAPipeline, lambda: make("Kandinsky6"), EULER,
        lambda: VIDEO | kandinsky6_prompts("", "negative_"), {"3x8x9"},
        modules=kandinsky6_modules,
    ),
    "Motif-Video with guidance": Run(
        MotifVideoPipeline, lambda: make("MotifVideo", in_channels=9), EULER,
        lambda: VIDEO | masked(prompt=5, negative=3), {"3x8x9 + 5 exact", "3x8x9 + 3 exact"}, 2,
        modules=motif_video_modules,
    ),
    "JoyImage-Edit with guidance": Run(
        JoyImageEditPipeline, lambda: make("JoyImageEdit"), EULER,
        lambda: PICTURE | masked("embeds_mask", prompt=11, negative=11), {"1x20x21 + 11 exact"},
        modules=lambda: {"vae": Stub({"scale_factor_temporal": 4, "scale_factor_spatial": 24})},
    ),
    "Flux": Run(
        FluxPipeline, lambda: make("Flux", in_channels=16), EULER,
        lambda: PICTURE | unmasked("") | pooled(""), {"1x16x17 + 11 exact"}, 1,
    ),
    "Flux image to image": Run(
        FluxImg2ImgPipeline, lambda: make("Flux", in_channels=16), EULER,
        lambda: PICTURE | unmasked("") | pooled("")
        | {"image": image(256, 272), "strength": 0.5},
        {"1x16x17 + 11 exact"}, 1, modules=flux_vae, steps=STEPS - 1,
    ),
    "Flux Kontext": Run(
        FluxKontextPipeline, lambda: make("Flux", in_channels=16), EULER,
        lambda: PICTURE | unmasked("") | pooled("")
        | {"image": torch.rand(1, 3, 128, 272), "_auto_resize": False, "max_area": 256 * 272},
        {"1x16x17 + 147 exact"}, 1, modules=flux_vae,
    ),
    "Flux2": Run(
        Flux2Pipeline, lambda: make("Flux2", guidance_embeds=True), EULER,
        lambda: PICTURE | unmasked(""), {"1x16x17 + 11 exact"}, 1,
    ),
    "Flux2 Klein with guidance": Run(
        Flux2KleinPipeline, lambda: make("Flux2"), EULER,
        lambda: PICTURE | unmasked("", "negative_"), {"1x16x17 + 11 exact"}, 1, modules=klein_vae,
    ),
    "Ovis-Image with guidance": Run(
        OvisImagePipeline, lambda: make("OvisImage", in_channels=16, out_channels=16), EULER,
        lambda: PICTURE | unmasked("", "negative_") | {"negative_prompt": None},
        {"1x16x17 + 11 exact"}, 1,
    ),
    "LongCat-Image with guidance": Run(
        LongCat, lambda: make("LongCatImage", in_channels=64), EULER,
        lambda: PICTURE | unmasked("", "negative_") | {"enable_prompt_rewrite": False},
        {"1x16x17 + 11 exact"}, 1,
    ),
    "Bria with guidance": Run(
        BriaPipeline, lambda: make("Bria", in_channels=16), EULER,
        lambda: PICTURE | unmasked("", "negative_"), {"1x16x17 + 11 exact"}, 1,
        modules=bria_modules,
    ),
    "Bria FIBO with guidance": Run(
        BriaFiboPipeline, lambda: make("BriaFibo", text_encoder_dim=12), EULER,
        lambda: PICTURE | {"prompt": "red circle", "negative_prompt": "blur"},
        {"1x16x17 + 4 exact"}, 2, modules=fibo_modules,
    ),
    "Chroma with guidance": Run(
        ChromaPipeline, lambda: make("Chroma", in_channels=16), EULER,
        lambda: PICTURE | masked(prompt=5, negative=3),
        {"1x16x17 + 5 exact", "1x16x17 + 3 exact"}, 3,
    ),
    "HunyuanImage with guidance": Run(
        HunyuanImagePipeline, lambda: make("HunyuanImage", patch_size=(1, 1), rope_axes_dim=(8, 8)),
        EULER, lambda: {"height": 512, "width": 544}
        | masked("embeds_mask", prompt=5, negative=3) | glyphs("", "negative_"),
        {"1x16x17 + 7 exact", "1x16x17 + 5 exact"}, 4,
        modules=lambda: {"guider": ClassifierFreeGuidance(guidance_scale=3.0)},
    ),
    "Krea 2 with guidance": Run(
        Krea2Pipeline, lambda: make("Krea2", in_channels=16), EULER,
        lambda: PICTURE | {
            f"{name}prompt_embeds{what}": value
            for name, length in (("", 5), ("negative_", 11))
            for what, value in (("", torch.randn(1, TEXT, 2, TEXT_DIM)),
            ("_mask", (torch.arange(TEXT) < length)[None]))
        },
        {"1x16x17 + 5 exact", "1x16x17 + 11 exact"}, 3,
    ),
    "ERNIE-Image with guidance": Run(
        ErnieImagePipeline, lambda: make("ErnieImage"), EULER,
        lambda: PICTURE | texts(prompt=5, negative=11), {"1x16x17 + 11 exact"}, 1,
        modules=lambda: {"vae": klein_vae()["vae"]},
    ),
    "PRX with guidance": Run(
        PRXPipeline, lambda: make("PRX"), EULER,
        lambda: PICTURE | masked(prompt=5, negative=3) | {"use_resolution_binning": False},
        {"1x16x17 + 3 exact"}, 1,
        modules=lambda: {"vae": Stub({"latent_channels": 4}, spatial_compression_ratio=8)},
    ),
    "Nucleus-Image with guidance": Run(
        NucleusMoEImagePipeline, lambda: make("NucleusMoEImage", in_channels=16, out_channels=4),
        EULER, lambda: PICTURE | masked("embeds_mask", prompt=5, negative=3),
        {"1x16x17 + 5 exact", "1x16x17 + 3 exact"}, 2,
    ),
    "Qwen-Image": Run(
        QwenImagePipeline, lambda: make("QwenImage", in_channels=16, out_channels=4), EULER,
        lambda: PICTURE | masked("embeds_mask", prompt=11) | {"true_cfg_scale": 1.0},
        {"1x16x17 + 11 exact"}, 0,
    ),
    "Qwen-Image with guidance": Run(
        QwenImagePipeline, lambda: make("QwenImage", in_channels=16, out_channels=4), EULER,
        lambda: PICTURE | masked("embeds_mask", prompt=5, negative=3) | {"true_cfg_scale": 4.0},
        {"1x16x17 + 5 exact", "1x16x17 + 3 exact"}, 2,
    ),
    "Z-Image": Run(
        ZImagePipeline, lambda: make("ZImage"), EULER,
        lambda: PICTURE | texts(prompt=11) | {"guidance_scale": 0.0}, {"1x16x17 + 48 exact"},
    ),
    "Z-Image with guidance": Run(
        ZImagePipeline, lambda: make("ZImage"), EULER,
        lambda: PICTURE | texts(prompt=11, negative=40), {"1x16x17 + 48 exact"},
    ),
    "Z-Image image to image": Run(
        ZImageImg2ImgPipeline, lambda: make("ZImage"), EULER,
        lambda: PICTURE | texts(prompt=11, negative=40)
        | {"image": image(256, 272), "strength": 0.5},
        {"1x16x17 + 48 exact"}, modules=flux_vae, steps=STEPS - 1,
    ),
    "MiniMax-H3": ModularRun(
        MiniMaxH3CoreDenoiseStep, minimax_h3, MiniMaxH3Scheduler, packed,
        {"37x4x5 + 425 exact"}, 1, modules=minimax_h3_modules, steps=STEPS - 1,
    ),
    "MiniMax-H3 with a first frame": ModularRun(
        MiniMaxH3FL2VACoreDenoiseStep, minimax_h3, MiniMaxH3Scheduler,
        lambda: packed(condition_latents=[torch.randn(1, 24, 1, 8, 10)],
        keyframe_anchors=("first",)),
        {"37x4x5 + 445 exact"}, 1, modules=minimax_h3_modules, steps=STEPS - 1,
    ),
}  # fmt: skip
