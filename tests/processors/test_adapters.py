"""What users put on a transformer: LoRA, guiders of diffusers, IP adapters."""

import pytest
import torch
from diffusers.hooks import HookRegistry, LayerSkipConfig
from diffusers.hooks.layer_skip import _apply_layer_skip_hook
from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor

import ajour
from ajour.processors import family_of
from ajour.processors.weights import weight_of
from tests.processors.families import SPARSE, call, make, sparse
from tests.processors.models import CASES, HEAD_DIM, HEADS

# What peft and diffusers say where an adapter is added or fused.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def inputs_of(name):
    grid = (1, 12, 13) if name in ("Flux", "QwenImage", "ZImage") else (3, 7, 9)
    return CASES[name].inputs(grid, 7, 1)


@pytest.fixture
def lora():
    peft = pytest.importorskip("peft")
    return peft.LoraConfig(
        r=4, lora_alpha=16, init_lora_weights=False, target_modules=["to_q", "to_v", "to_out.0"]
    )


@pytest.mark.parametrize("name", ["Wan", "CogVideoX", "Flux", "QwenImage"])
def test_lora_after_enable_runs_as_before_it(name, lora):
    transformer, inputs = make(name), inputs_of(name)
    with torch.no_grad(), sparse(transformer, SPARSE, strict=True):
        plain = call(transformer, inputs)
        transformer.add_adapter(lora, "first")
        first = call(transformer, inputs)
        transformer.add_adapter(lora, "second")
        transformer.set_adapter("second")
        second = call(transformer, inputs)
        transformer.set_adapter("first")
        same = [call(transformer, inputs)]
        transformer.fuse_lora(adapter_names=["first"])
        same.append(call(transformer, inputs))
        transformer.unfuse_lora()
        same.append(call(transformer, inputs))
    with torch.no_grad(), sparse(transformer, SPARSE, strict=True):
        same.append(call(transformer, inputs))
        transformer.delete_adapters(["first", "second"])
        torch.testing.assert_close(call(transformer, inputs), plain, rtol=1e-4, atol=1e-4)
    for out in same:
        torch.testing.assert_close(out, first, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(plain, first, atol=1e-2)
    assert not torch.allclose(first, second, atol=1e-2)


@pytest.mark.parametrize("name", ["Wan", "Flux"])
def test_the_weight_is_that_of_the_adapter_that_runs(name, lora):
    transformer = make(name)
    layer = family_of(transformer).layers(transformer)[0]
    out = torch.zeros(1, 3, HEADS, HEAD_DIM)
    transformer.add_adapter(lora, "first")
    transformer.add_adapter(lora, "second")
    weights = {}
    for adapter in ("first", "second"):
        transformer.set_adapter(adapter)
        weights[adapter] = weight_of(layer.to_out[0], out)
    transformer.disable_adapters()
    plain = weight_of(layer.to_out[0], out)
    torch.testing.assert_close(plain, layer.to_out[0].base_layer.weight, rtol=1e-5, atol=1e-6)
    for adapter, weight in weights.items():
        transformer.enable_adapters()
        delta = layer.to_out[0].get_delta_weight(adapter)
        torch.testing.assert_close(weight, plain + delta, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "skip"),
    [
        ("QwenImage", "skip_attention_scores"),
        ("ZImage", "skip_attention_scores"),
        ("ZImage", "skip_attention"),
    ],
)
def test_guiders_that_skip_attention(name, skip):
    """They look processors up by class; perturbed-attention guidance takes values for attention."""
    transformer, inputs = make(name), inputs_of(name)
    blocks = "layers" if name == "ZImage" else "transformer_blocks"
    options = {"skip_attention": False, "skip_ff": False} | {skip: True}
    config = LayerSkipConfig(indices=[0, 1], fqn=blocks, **options)
    registry = HookRegistry.check_if_exists_or_initialize(transformer)
    _apply_layer_skip_hook(transformer, config, name="skip")
    stock = call(transformer, inputs)
    registry.remove_hook("skip", recurse=True)
    with sparse(transformer, SPARSE, strict=True):
        before = call(transformer, inputs)
        _apply_layer_skip_hook(transformer, config, name="skip")
        out = call(transformer, inputs)
        registry.remove_hook("skip", recurse=True)
        assert torch.equal(call(transformer, inputs), before)
    torch.testing.assert_close(out, stock, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(out, before, atol=1e-4)


def test_an_ip_adapter_says_what_to_do():
    transformer = make("Flux")
    attention = transformer.transformer_blocks[0].attn
    attention.processor = FluxIPAdapterAttnProcessor(HEADS * HEAD_DIM, HEADS * HEAD_DIM)
    with torch.no_grad(), sparse(transformer, SPARSE):
        images = {"ip_hidden_states": [torch.randn(1, 1, 4, HEADS * HEAD_DIM)]}
        call(transformer, inputs_of("Flux") | {"joint_attention_kwargs": images})
        reasons = ajour.summary(transformer).fallbacks
    assert any("IP adapter" in reason and "unload_ip_adapter" in reason for reason in reasons)
