"""What differs within a family: configurations, and calls that have to run dense."""

import copy

import pytest
import torch
from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor

import ajour
from tests.processors.families import FULL, SPARSE, assert_equals_stock, call, make, sparse
from tests.processors.models import CASES, raster

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")

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
]


@pytest.mark.parametrize(("name", "config", "options"), CONFIGURATIONS, ids=str)
def test_configurations(name, config, options):
    assert_equals_stock(make(name, **config), CASES[name].inputs(GRID, 7, 2) | options)


def test_cogvideox_with_position_embeddings():
    transformer = make("CogVideoX", use_rotary_positional_embeddings=False, max_text_seq_length=7)
    assert_equals_stock(transformer, CASES["CogVideoX"].inputs(GRID) | {"image_rotary_emb": None})


@pytest.mark.parametrize("name", ["CogVideoX", "Flux"])
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


@pytest.mark.parametrize(
    ("name", "key"), [("CogVideoX", "attention_kwargs"), ("Flux", "joint_attention_kwargs")]
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
        assert ajour.summary(transformer).grid == "2x8x9 + 7 text"


def test_flux_reference_image_of_another_size_is_exact():
    transformer, inputs = make("Flux"), kontext((6, 10))
    assert_equals_stock(transformer, inputs)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
        assert ajour.summary(transformer).grid == "1x8x9 + 67 text"


def test_flux_larger_reference_image_is_the_grid():
    transformer, inputs = make("Flux"), kontext((12, 15))
    assert_equals_stock(transformer, inputs)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
        assert ajour.summary(transformer).grid == "1x12x15 + 79 text"


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
        assert ajour.summary(transformer).grid == "3x7x9 + 63 text"


def test_ltx_coordinates_that_differ_within_a_batch_run_dense():
    inputs = with_coordinates()
    inputs["video_coords"] = inputs["video_coords"].clone()
    inputs["video_coords"][1, 0] += 1
    assert_runs_dense(make("LTX"), inputs, "less than half the tokens are one video")


def test_mochi_padding_in_front_runs_dense():
    inputs = CASES["Mochi"].inputs(GRID)
    inputs["encoder_attention_mask"][:, :3] = False
    assert_runs_dense(make("Mochi"), inputs, "hides text in front")
