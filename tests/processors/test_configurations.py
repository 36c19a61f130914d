"""What differs within a family: configurations, and calls that have to run dense."""

import copy
import sys

import pytest
import torch
from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor
from diffusers.models.transformers.transformer_flux2 import (
    Flux2KVAttnProcessor,
    Flux2KVParallelSelfAttnProcessor,
)

import ajour
from ajour.processors import family_of
from tests.processors.families import FULL, SPARSE, assert_equals_stock, call, make, sparse
from tests.processors.models import CASES, minimax_h3_inputs, raster

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast", "ignore:Mismatch dtype")

GRID = (3, 7, 9)


def assert_runs_dense(transformer, inputs, reason):
    stock = call(transformer, copy.copy(inputs))
    with sparse(transformer, SPARSE):
        assert torch.equal(call(transformer, copy.copy(inputs)), stock)
        assert len(ajour.summary(transformer).fallbacks) == 1
        assert reason in ajour.summary(transformer).fallbacks[0]
    with sparse(transformer, FULL, strict=True), pytest.raises(RuntimeError, match="strict"):
        call(transformer, copy.copy(inputs))


CONFIGURATIONS = [
    ("HunyuanVideo", {"image_condition_type": "token_replace"}, {}),
    ("HunyuanVideo", {"patch_size_t": 1, "num_single_layers": 0}, {}),
    ("HunyuanVideo", {"num_layers": 0}, {}),
    ("HunyuanVideo", {"guidance_embeds": True}, {"guidance": torch.tensor([6000.0, 6000.0])}),
    ("CogVideoX", {"attention_bias": False}, {}),
    ("CogVideoX15", {"ofs_embed_dim": 8}, {"ofs": torch.tensor([2.0])}),
    ("Flux", {"num_single_layers": 0}, {}),
    ("Flux", {"num_layers": 0}, {}),
    ("Flux", {"guidance_embeds": True}, {"guidance": torch.tensor([3.5, 3.5])}),
    ("Mochi", {"num_layers": 1}, {}),
    ("WanVACE", {"vace_layers": [0]}, {"control_hidden_states_scale": torch.tensor([0.5])}),
    ("WanAnimate", {"inject_face_latents_blocks": 1}, {}),
    ("SkyReelsV2", {"inject_sample_info": True}, {"fps": [1, 0]}),
    ("HunyuanVideo15", {"use_meanflow": True}, {"timestep_r": torch.tensor([400.0, 400.0])}),
    ("LTX2", {"gated_attn": True, "audio_gated_attn": True}, {}),
    ("LTX2", {"rope_type": "split", "gated_attn": True}, {}),
    ("LTX2", {"norm_elementwise_affine": True, "perturbed_attn": True}, {}),
    ("LTX2", {}, {"isolate_modalities": True}),
    ("Flux2", {"num_single_layers": 0}, {}),
    ("Flux2", {"num_layers": 0}, {}),
    ("Flux2", {"guidance_embeds": True}, {"guidance": torch.tensor([3.5, 3.5])}),
    ("QwenImage", {}, {"encoder_hidden_states_mask": None}),
    ("QwenImage", {"zero_cond_t": True}, {}),
    ("ZImage", {"n_refiner_layers": 0}, {}),
    ("ZImage", {"qk_norm": False}, {}),
    ("ZImage", {}, {"controlnet_block_samples": {0: torch.ones(2, 224, 32)}}),
    ("MiniMaxH3", {"num_refiner_layers": 0, "rope_freq_dim": 1}, {}),
]


@pytest.mark.parametrize(("name", "config", "options"), CONFIGURATIONS, ids=str)
def test_configurations(name, config, options):
    assert_equals_stock(make(name, **config), CASES[name].inputs(GRID, 7, 2) | options)


def test_cogvideox_with_position_embeddings():
    transformer = make("CogVideoX", use_rotary_positional_embeddings=False, max_text_seq_length=7)
    assert_equals_stock(transformer, CASES["CogVideoX"].inputs(GRID) | {"image_rotary_emb": None})


@pytest.mark.parametrize(
    "name",
    ["CogVideoX", "Flux", "Flux2", "MiniMaxH3", "SkyReelsV2"]
    + ["Wan", "WanAnimate", "WanI2V", "WanVACE"],
)
def test_fused_projections(name):
    transformer, inputs = make(name), CASES[name].inputs(GRID)
    with sparse(transformer, SPARSE, strict=True):
        apart = call(transformer, inputs)
    transformer.fuse_qkv_projections()
    transformer.requires_grad_(False)
    for layer in transformer.modules():  # what is not read cannot be mistaken for what is
        if hasattr(layer, "to_qkv"):
            layer.to_q.weight.zero_()
    with sparse(transformer, SPARSE, strict=True):
        torch.testing.assert_close(call(transformer, inputs), apart, rtol=1e-4, atol=1e-5)


def test_fused_projections_that_stock_does_not_use():
    transformer, inputs = make("LTX"), CASES["LTX"].inputs(GRID)
    with sparse(transformer, SPARSE, strict=True):
        apart = call(transformer, inputs)
        transformer.fuse_qkv_projections()
        assert any(hasattr(module, "to_qkv") for module in transformer.modules())
        assert torch.equal(call(transformer, inputs), apart)


class Adapter(torch.nn.Module):
    """What an adapter such as LoRA does to a linear layer: it wraps it, under the same name."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.down = torch.nn.Linear(inner.in_features, 2, bias=False)
        self.up = torch.nn.Linear(2, inner.out_features, bias=False)

    def forward(self, x):
        return self.inner(x) + self.up(self.down(x))


PROJECTIONS = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
PROJECTIONS += ("to_query", "to_key", "to_value", "out_layer", "to_qkv_mlp_proj")
PROJECTIONS += ("img_attn_qkv", "img_attn_proj", "txt_attn_qkv", "txt_attn_proj")


@pytest.mark.parametrize("name", list(CASES))
def test_adapters_on_projections(name):
    transformer, inputs = make(name), CASES[name].inputs(GRID, 7, 2)
    with sparse(transformer, SPARSE, strict=True):
        plain = call(transformer, inputs)
    for layer in family_of(transformer).layers(transformer):
        module = getattr(layer, "module", layer)
        for key in PROJECTIONS:
            if isinstance(getattr(module, key, None), torch.nn.Linear):
                setattr(module, key, Adapter(getattr(module, key)))
        if isinstance(getattr(module, "to_out", None), torch.nn.Linear):
            module.to_out = Adapter(module.to_out)
        elif getattr(module, "to_out", None) is not None:
            module.to_out[0] = Adapter(module.to_out[0])
    assert_equals_stock(transformer.requires_grad_(False), inputs)
    with sparse(transformer, SPARSE, strict=True):
        assert not torch.allclose(call(transformer, inputs), plain, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("CogVideoX", "attention_kwargs"),
        ("Flux", "joint_attention_kwargs"),
        ("Flux2", "joint_attention_kwargs"),
    ],
)
def test_an_attention_mask_runs_dense(name, key):
    inputs = CASES[name].inputs((1, 16, 9), 7, 1)
    mask = torch.zeros(1, 1, 151) if name == "CogVideoX" else torch.ones(1, 151, dtype=torch.bool)
    mask[..., 5] = -1e4 if name == "CogVideoX" else False
    transformer = make(name)
    plain = call(transformer, inputs)
    inputs[key] = {"attention_mask": mask}
    assert not torch.equal(call(transformer, copy.copy(inputs)), plain)
    assert_runs_dense(transformer, inputs, f"{key} holds an attention_mask")


def test_flux_ids_with_a_batch_dimension():
    inputs = CASES["Flux"].inputs((1, 16, 17))
    transformer = make("Flux")
    with sparse(transformer, SPARSE, strict=True):
        expected = call(transformer, inputs)
        batched = inputs | {key: inputs[key][None] for key in ("img_ids", "txt_ids")}
        assert torch.equal(call(transformer, batched), expected)


def test_chroma_masks():
    """Diffusers adds a floating mask to logits, so that it hides nothing."""
    transformer, inputs = make("Chroma"), CASES["Chroma"].inputs((1, 16, 9), 7, 2)
    mask = torch.ones(2, 7 + 144, dtype=torch.bool)
    mask[0, 4:7] = False
    assert_equals_stock(transformer, inputs | {"attention_mask": mask})
    assert_runs_dense(transformer, inputs | {"attention_mask": mask.float()}, "adds it to logits")
    mask[1, 9] = False
    assert_runs_dense(transformer, inputs | {"attention_mask": mask}, "other tokens than one")


def test_krea2_padding_within_the_text():
    transformer, inputs = make("Krea2"), CASES["Krea2"].inputs((1, 16, 9), 7, 2)
    mask = inputs["encoder_attention_mask"]
    mask[0, 2:5] = False
    assert_equals_stock(transformer, inputs)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
        assert ajour.summary(transformer).grid == "1x16x9 + 4 exact"
    mask[1, 3:6] = False
    assert_runs_dense(transformer, inputs | {"encoder_attention_mask": mask.clone()}, "one stretch")


def kontext(reference):
    """Inputs with a reference image after the image, as FluxKontextPipeline gives them."""
    image, other = raster((1, 8, 9)), raster((1, *reference))
    other[:, 0] = 1
    inputs = CASES["Flux"].inputs((1, 1, len(image) + len(other)))
    return inputs | {"img_ids": torch.cat((image, other)).float()}


def test_flux_reference_image_of_the_same_size():
    transformer, inputs = make("Flux"), kontext((8, 9))
    assert_equals_stock(transformer, inputs)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
        assert ajour.summary(transformer).grid == "2x8x9 + 7 exact"


def test_flux_reference_image_of_another_size_is_exact():
    transformer, inputs = make("Flux"), kontext((6, 10))
    assert_equals_stock(transformer, inputs)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
        assert ajour.summary(transformer).grid == "1x8x9 + 67 exact"


def test_flux_larger_reference_image_is_the_grid():
    transformer, inputs = make("Flux"), kontext((12, 15))
    assert_equals_stock(transformer, inputs)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
        assert ajour.summary(transformer).grid == "1x12x15 + 79 exact"


@pytest.mark.parametrize(("name", "ids"), [("Flux", 3), ("Flux2", 4)])
def test_image_tokens_in_disorder_run_dense(name, ids):
    inputs = CASES[name].inputs((1, 16, 9))
    inputs["img_ids"] = torch.stack([torch.randperm(144) for _ in range(ids)], dim=1)
    assert_runs_dense(make(name), inputs, "less than half the image tokens are one grid")


def test_flux_ip_adapter_runs_dense():
    transformer, inputs = make("Flux"), CASES["Flux"].inputs((1, 16, 17))
    for block in transformer.transformer_blocks:
        block.attn.set_processor(FluxIPAdapterAttnProcessor(32, 32))
    transformer.requires_grad_(False)
    inputs["joint_attention_kwargs"] = {"ip_hidden_states": [torch.randn(1, 4, 32)]}
    keys = list(transformer.state_dict())
    stock = call(transformer, inputs)
    with sparse(transformer, SPARSE):
        assert list(transformer.state_dict()) == keys
        mixed = call(transformer, inputs)
        assert "FluxIPAdapterAttnProcessor" in ajour.summary(transformer).fallbacks[0]
    with sparse(transformer, FULL):
        torch.testing.assert_close(call(transformer, inputs), stock, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mixed, stock, rtol=1e-4, atol=1e-5)
    assert torch.equal(call(transformer, inputs), stock)


def with_coordinates(conditions=0, batch=2):
    """Inputs as LTXConditionPipeline gives them: pixel coordinates, conditions in front."""
    inputs = CASES["LTX"].inputs(GRID, 7, batch)
    for key in ("num_frames", "height", "width", "rope_interpolation_scale"):
        del inputs[key]
    points = raster(GRID).T * torch.tensor([[8.0], [32.0], [32.0]])
    points[0] = (points[0] - 7).clamp(min=0) / 25
    points = torch.cat((points[:, :conditions], points), dim=1).expand(batch, -1, -1)
    states = torch.cat((inputs["hidden_states"][:, :conditions], inputs["hidden_states"]), dim=1)
    return inputs | {"hidden_states": states, "video_coords": points}


def test_ltx_coordinates_tell_the_grid():
    transformer, inputs = make("LTX"), with_coordinates()
    assert_equals_stock(transformer, inputs)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
        assert ajour.summary(transformer).grid == "3x7x9"


def test_ltx_conditions_are_exact():
    transformer, inputs = make("LTX"), with_coordinates(63)
    assert_equals_stock(transformer, inputs)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
        assert ajour.summary(transformer).grid == "3x7x9 + 63 exact"


def test_ltx_coordinates_that_differ_within_a_batch_run_dense():
    inputs = with_coordinates()
    inputs["video_coords"] = inputs["video_coords"].clone()
    inputs["video_coords"][1, 0] += 1
    assert_runs_dense(make("LTX"), inputs, "less than half the tokens are one video")


def test_mochi_padding_in_front_runs_dense():
    inputs = CASES["Mochi"].inputs(GRID)
    inputs["encoder_attention_mask"][:, :3] = False
    assert_runs_dense(make("Mochi"), inputs, "hides text in front")


def test_skyreels_causal_attention_runs_dense():
    transformer = make("SkyReelsV2", num_frame_per_block=3)
    assert_runs_dense(transformer, CASES["SkyReelsV2"].inputs((6, 4, 6)), "attention is causal")


def test_skyreels_diffusion_forcing_runs_dense():
    inputs = CASES["SkyReelsV2"].inputs(GRID, 7, 2)
    inputs |= {"timestep": torch.tensor([[0, 300, 600]] * 2), "enable_diffusion_forcing": True}
    assert_runs_dense(make("SkyReelsV2"), inputs, "every frame has its own noise level")


def test_kandinsky_nabla_runs_dense(monkeypatch):
    transformer, inputs = make("Kandinsky5"), CASES["Kandinsky5"].inputs((2, 8, 16))
    module = sys.modules[type(transformer).__module__]
    seen = []
    monkeypatch.setattr(module, "nablaT_v2", lambda *_, **__: seen.append(1))  # needs a compiler
    inputs["sparse_params"] = {"sta_mask": None, "P": 0.9, "to_fractal": True}
    assert_runs_dense(transformer, inputs, "NABLA")
    assert seen


@pytest.mark.parametrize("batch", [1, 2])
def test_kandinsky_with_several_blocks_in_low_precision(batch):
    transformer = make("Kandinsky5", num_visual_blocks=3)
    assert_equals_stock(transformer, CASES["Kandinsky5"].inputs(GRID, 7, batch), torch.bfloat16)


def ltx2_coordinates(transformer, batch, keyframes=0):
    """Inputs with bounds of each token in pixels, and first frames again behind the video."""
    inputs = CASES["LTX2"].inputs(GRID, 7, batch)
    coordinates = transformer.rope.prepare_video_coords(batch, *GRID, "cpu")
    extra = coordinates[:, :, : 63 * keyframes]
    states = torch.randn(batch, 189 + 63 * keyframes, 4)
    return inputs | {
        "hidden_states": states,
        "timestep": torch.full(states.shape[:2], 500.0),
        "video_coords": torch.cat((coordinates, extra), dim=2),
    }


@pytest.mark.parametrize(("keyframes", "grid"), [(0, "3x7x9"), (1, "3x7x9 + 63 exact")])
def test_ltx2_coordinates_tell_the_grid(keyframes, grid):
    transformer = make("LTX2")
    inputs = ltx2_coordinates(transformer, 2, keyframes)
    assert_equals_stock(transformer, inputs)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
        assert ajour.summary(transformer).grid == grid


def test_ltx2_dense_calls():
    transformer = make("LTX2")
    inputs = ltx2_coordinates(transformer, 2)
    other = inputs | {"video_coords": inputs["video_coords"].clone()}
    other["video_coords"][1, 0] += 1
    assert_runs_dense(transformer, other, "less than half the tokens are one video")
    inputs["video_self_attention_mask"] = torch.rand(2, 189, 189).round()
    assert_runs_dense(transformer, inputs, "video_self_attention_mask")


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("kept", [(1, 1), (1, 0), (0.5, 0), (0, 0)], ids=str)
def test_ltx2_perturbed_samples(kept, gated):
    transformer = make("LTX2", perturbed_attn=True, gated_attn=gated)
    inputs = CASES["LTX2"].inputs(GRID, 7, 2)
    options = {
        "spatio_temporal_guidance_blocks": [1],
        "perturbation_mask": torch.tensor(kept).float(),
    }
    assert_equals_stock(transformer, inputs | options)
    with sparse(transformer, SPARSE, strict=True):
        perturbed, plain = call(transformer, inputs | options), call(transformer, inputs)
    for sample in range(2):
        same = torch.allclose(perturbed[sample], plain[sample], rtol=1e-4, atol=1e-5)
        assert same == (kept[sample] == 1)


def flux2_with_reference(shape):
    """Inputs with a reference image behind the image, as Flux2Pipeline gives them."""
    points, other = raster((1, 8, 9)), raster((1, *shape))
    other[:, 0] = 10
    inputs = CASES["Flux2"].inputs((1, 1, len(points) + len(other)))
    ids = torch.nn.functional.pad(torch.cat((points, other)), (0, 1))
    return inputs | {"img_ids": ids[None]}


@pytest.mark.parametrize(
    ("shape", "grid"),
    [((8, 9), "2x8x9 + 7 exact"), ((6, 10), "1x8x9 + 67 exact"), ((12, 15), "1x12x15 + 79 exact")],
)
def test_flux2_reference_images(shape, grid):
    transformer, inputs = make("Flux2"), flux2_with_reference(shape)
    assert_equals_stock(transformer, inputs)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
        assert ajour.summary(transformer).grid == grid


@pytest.mark.parametrize("mode", ["extract", "cached"])
def test_flux2_cached_references_run_dense(mode):
    transformer = make("Flux2")
    for block in transformer.transformer_blocks:
        block.attn.set_processor(Flux2KVAttnProcessor())
    for block in transformer.single_transformer_blocks:
        block.attn.set_processor(Flux2KVParallelSelfAttnProcessor())
    inputs = flux2_with_reference((8, 9)) | {"kv_cache_mode": "extract", "num_ref_tokens": 72}
    if mode == "cached":
        _, cache = transformer(**inputs, return_dict=False)
        inputs = CASES["Flux2"].inputs((1, 8, 9)) | {"kv_cache": cache, "kv_cache_mode": mode}
    assert_runs_dense(transformer, inputs, "the keys of reference images are cached")


@pytest.mark.parametrize(
    ("shapes", "grid"),
    [
        ([(1, 8, 9), (1, 8, 9)], "2x8x9 + 7 exact"),
        ([(1, 8, 9), (1, 6, 10)], "1x8x9 + 67 exact"),
        ([(1, 8, 9), (1, 12, 15)], "1x12x15 + 79 exact"),
        ([(1, 5, 5), (1, 12, 15), (1, 4, 5)], "1x12x15 + 52 exact"),
    ],
)
def test_qwen_images_of_several_sizes(shapes, grid):
    tokens = sum(height * width for _, height, width in shapes)
    transformer = make("QwenImage")
    inputs = CASES["QwenImage"].inputs((1, 1, tokens), 7, 2) | {"img_shapes": [shapes] * 2}
    assert_equals_stock(transformer, inputs)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
        assert ajour.summary(transformer).grid == grid
        inputs["encoder_hidden_states_mask"][:, 5:] = 0
        call(transformer, inputs)
        assert ajour.summary(transformer).grid == grid.replace(
            grid.split()[2], str(int(grid.split()[2]) - 2)
        )
    assert_equals_stock(transformer, inputs)


def test_qwen_dense_calls():
    transformer = make("QwenImage")
    shapes = [(1, 6, 8), (1, 8, 7), (1, 5, 10)]
    inputs = CASES["QwenImage"].inputs((1, 1, 154), 7, 1) | {"img_shapes": [shapes]}
    assert_runs_dense(transformer, inputs, "less than half the image tokens are of one size")
    inputs = CASES["QwenImage"].inputs((2, 7, 11))
    inputs["encoder_hidden_states_mask"][:, :3] = 0
    assert_runs_dense(transformer, inputs, "hides text in front")


@pytest.mark.parametrize("patch_frames", [1, 2])
def test_z_image_patch_sizes_are_those_of_the_call(patch_frames):
    transformer = make("ZImage", all_patch_size=(2, 4), all_f_patch_size=(1, patch_frames))
    inputs = CASES["ZImage"].inputs((2 * patch_frames, 12, 20))
    inputs |= {"patch_size": 4, "f_patch_size": patch_frames}
    assert_equals_stock(transformer, inputs)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
        frames = {1: 2, 2: 2}[patch_frames]
        assert ajour.summary(transformer).grid == f"{frames}x6x10 + 40 exact"


def test_z_image_images_of_different_sizes_run_dense():
    inputs = CASES["ZImage"].inputs((1, 12, 16), 7, 2)
    inputs["x"][1] = inputs["x"][1].transpose(2, 3)
    assert_runs_dense(make("ZImage"), inputs, "images differ in size")


def test_z_image_several_images_run_dense():
    inputs = CASES["ZImage"].inputs((1, 12, 16), 7, 2)
    inputs = {
        "x": [inputs["x"]],
        "t": torch.tensor([0.5]),
        "cap_feats": [inputs["cap_feats"]],
        "siglip_feats": [None],
        "image_noise_mask": [[0, 1]],
    }
    assert_runs_dense(make("ZImage"), inputs, "a sample has several images")


@pytest.mark.parametrize("anchors", [("first",), ("first", "last")], ids=str)
def test_minimax_h3_conditions_are_exact(anchors):
    transformer, inputs = make("MiniMaxH3"), minimax_h3_inputs(GRID, anchors=anchors)
    assert_equals_stock(transformer, inputs)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
        exact = 7 + 6 + 63 * len(anchors)
        assert ajour.summary(transformer).grid == f"3x7x9 + {exact} exact"


def test_minimax_h3_conditions_do_not_hide_that_no_step_was_called():
    transformer, inputs = make("MiniMaxH3"), minimax_h3_inputs(GRID, anchors=("first",))
    later = inputs | {"timestep": inputs["timestep"].where(inputs["timestep"] > 0.9, 0.6)}
    assert later["timestep"].max() == inputs["timestep"].max()
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
        call(transformer, inputs)
        with pytest.raises(RuntimeError, match="timestep changed without a call"):
            call(transformer, later)


@pytest.mark.parametrize("text", [121, 300])
def test_minimax_h3_with_little_video_runs_dense(text):
    inputs = minimax_h3_inputs((2, 7, 9), text)
    assert_runs_dense(make("MiniMaxH3"), inputs, "less than half the tokens are the target video")
