"""Text padding that a mask hides: left out exactly, read on the host once."""

import sys

import pytest
import torch

import ajour
from ajour.processors import family_of, hunyuan_video
from ajour.processors.host import read_once
from tests.processors.families import FULL, SPARSE, assert_equals_stock, call, make, sparse
from tests.processors.models import CASES

# Mochi turns autocast on in float32, of which torch warns on CPU.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")

READERS = {
    "HunyuanVideo": "valid_lengths",
    "Mochi": "prefix_lengths",
    "QwenImage": "prefix_lengths",
}
MASKS = {"QwenImage": "encoder_hidden_states_mask"}
families = pytest.mark.parametrize("name", list(READERS))


def mask_of(name):
    return MASKS.get(name, "encoder_attention_mask")


def padded(name, lengths, text=11, grid=(2, 8, 9)):
    inputs = CASES[name].inputs(grid, text, len(lengths))
    mask = torch.arange(text) < torch.tensor(lengths)[:, None]
    return inputs | {mask_of(name): mask.to(inputs[mask_of(name)].dtype)}


@families
@pytest.mark.parametrize("lengths", [(1,), (7,), (11,), (5, 5), (1, 11), (3, 8, 3)], ids=str)
def test_a_full_plan_equals_stock(name, lengths):
    assert_equals_stock(make(name), padded(name, lengths))


@pytest.mark.parametrize("name", ["Mochi", "QwenImage"])
@pytest.mark.parametrize("lengths", [(0,), (0, 5)], ids=str)
def test_all_text_may_be_hidden(name, lengths):
    assert_equals_stock(make(name), padded(name, lengths))


@families
@pytest.mark.parametrize("lengths", [(77,), (256, 77)], ids=str)
def test_the_longest_text(name, lengths):
    transformer, inputs = make(name), padded(name, lengths, text=256)
    assert_equals_stock(transformer, inputs)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
        assert ajour.summary(transformer).grid == f"2x8x9 + {lengths[0]} exact"


@pytest.mark.parametrize("name", ["CogVideoX", "CogVideoX15", "Flux", "Flux2"])
@pytest.mark.parametrize("batch", [1, 2])
def test_no_text(name, batch):
    transformer, inputs = make(name), CASES[name].inputs((1, 16, 9), 0, batch)
    assert_equals_stock(transformer, inputs)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
        assert ajour.summary(transformer).grid == "1x16x9"


def texts(*lengths, grid=(2, 8, 9)):
    """Z-Image's inputs with a text of each length."""
    inputs = CASES["ZImage"].inputs(grid, 1, len(lengths))
    return inputs | {"cap_feats": [torch.randn(length, 24) for length in lengths]}


@pytest.mark.parametrize("grid", [(1, 8, 8), (2, 8, 9), (1, 11, 13)], ids=str)
@pytest.mark.parametrize("lengths", [(5, 11), (32, 33), (70, 3, 64)], ids=str)
def test_z_image_texts_of_different_lengths(grid, lengths):
    transformer, inputs = make("ZImage"), texts(*lengths, grid=grid)
    assert_equals_stock(transformer, inputs)
    with sparse(transformer, SPARSE, strict=True):
        together = call(transformer, inputs)
        assert ajour.summary(transformer).grid == str(CASES["ZImage"].grid(grid, lengths[0]))
        for sample in range(len(lengths)):
            alone = {key: value[sample : sample + 1] for key, value in inputs.items()}
            out = call(transformer, alone)
            torch.testing.assert_close(together[sample], out[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lengths", [(5,), (3, 8)], ids=str)
@pytest.mark.parametrize("name", ["Framepack", "MotifVideo"])
def test_kin_of_hunyuan_video(name, lengths):
    """They read the same mask; Framepack's stock code leaves out one sample's padding itself."""
    transformer, inputs = make(name), padded(name, lengths)
    if name == "MotifVideo":
        transformer = make(name, image_embed_dim=8)
        inputs["image_embeds"] = torch.randn(len(lengths), 3, 8)
    assert_equals_stock(transformer, inputs)
    with sparse(transformer, SPARSE, strict=True):
        together = call(transformer, inputs)
        exact = CASES[name].grid((2, 8, 9), lengths[0] + 3 * (name == "MotifVideo"))
        assert ajour.summary(transformer).grid == str(exact)
        for sample, length in enumerate(lengths):
            alone = {
                key: value if key.startswith("indices") else value[sample : sample + 1]
                for key, value in inputs.items()
            }
            alone["encoder_hidden_states"] = alone["encoder_hidden_states"][:, :length]
            alone["encoder_attention_mask"] = alone["encoder_attention_mask"][:, :length]
            out = call(transformer, alone)
            torch.testing.assert_close(together[sample], out[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize(("texts", "glyphs"), [((5,), (0,)), ((1, 4), (3, 0)), ((2, 2), (1, 1))])
def test_hunyuan_video15_leaves_out_the_padding_of_all_three(image, texts, glyphs):
    transformer = make("HunyuanVideo15")
    inputs = CASES["HunyuanVideo15"].inputs((2, 8, 9), 11, len(texts))
    inputs["encoder_attention_mask"] = torch.arange(5) < torch.tensor(texts)[:, None]
    inputs["encoder_attention_mask_2"] = torch.arange(3) < torch.tensor(glyphs)[:, None]
    inputs["image_embeds"] *= image
    assert_equals_stock(transformer, inputs)
    with sparse(transformer, SPARSE, strict=True):
        sparse_out = call(transformer, inputs)
        length = 3 * image + texts[0] + glyphs[0]
        assert ajour.summary(transformer).grid == f"2x8x9 + {length} exact"
        for sample in range(len(texts)):
            alone = {key: value[sample : sample + 1] for key, value in inputs.items()}
            out = call(transformer, alone)[0]
            torch.testing.assert_close(sparse_out[sample], out, rtol=1e-4, atol=1e-5)


@families
@pytest.mark.parametrize("lengths", [(5,), (5, 5), (3, 8)], ids=str)
def test_hidden_text_influences_nothing(name, lengths):
    transformer, inputs = make(name), padded(name, lengths)
    hidden = inputs[mask_of(name)] == 0
    text = inputs["encoder_hidden_states"].clone()
    text[hidden] = torch.randn_like(text[hidden])
    other = inputs | {"encoder_hidden_states": text}
    torch.testing.assert_close(call(transformer, other), call(transformer, inputs))
    with sparse(transformer, SPARSE, strict=True):
        assert torch.equal(call(transformer, other), call(transformer, inputs))


@pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.bfloat16], ids=str)
def test_long_texts_are_counted_exactly_in_every_dtype(dtype):
    transformer, inputs = make("HunyuanVideo"), padded("HunyuanVideo", (259,), text=300)
    inputs["encoder_attention_mask"] = inputs["encoder_attention_mask"].to(dtype)
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
        assert ajour.summary(transformer).grid == "2x8x9 + 259 exact"


@families
def test_samples_of_different_lengths_are_as_if_alone(name):
    transformer, inputs = make(name), padded(name, (3, 8, 3))
    with sparse(transformer, SPARSE, strict=True):
        together = call(transformer, inputs)
        for sample in range(3):
            alone = {key: value[sample : sample + 1] for key, value in inputs.items()}
            out = call(transformer, alone)
            torch.testing.assert_close(together[sample], out[0], rtol=1e-4, atol=1e-5)
        assert ajour.summary(transformer).grid == "2x8x9 + 3 exact"


@families
def test_a_mask_is_read_once_per_run(name, monkeypatch):
    transformer, inputs = make(name), padded(name, (5,))
    module, reads = sys.modules[type(family_of(transformer)).__module__], []
    reader = getattr(module, READERS[name]).__wrapped__

    def lengths(mask):
        reads.append(mask)
        return reader(mask)

    monkeypatch.setattr(module, READERS[name], read_once(lengths))
    with sparse(transformer, FULL, strict=True):
        for _ in range(3):
            call(transformer, inputs)
        assert len(reads) == 1
        assert ajour.summary(transformer).grid == "2x8x9 + 5 exact"
        inputs[mask_of(name)][:, :6] = 1
        call(transformer, inputs)
        assert len(reads) == 2
        assert ajour.summary(transformer).grid == "2x8x9 + 6 exact"


def test_reading_follows_the_tensor():
    calls = []
    read = read_once(lambda tensor: calls.append(tensor.sum()) or len(calls))
    one, other = torch.zeros(2), torch.zeros(2)
    assert [read(one), read(one), read(other), read(one)] == [1, 1, 2, 1]
    one.add_(1)
    assert [read(one), read(other), read(one)] == [3, 2, 3]
    with torch.inference_mode():
        inference = torch.zeros(2)
        assert [read(inference), read(inference)] == [4, 5]


def test_a_pass_asks_for_its_mask_once(monkeypatch):
    """Tensors of `torch.inference_mode` are read at each call, and a read waits for the GPU."""
    transformer, inputs = make("HunyuanVideo"), padded("HunyuanVideo", (5,))
    read, reads = hunyuan_video.valid_lengths, []
    monkeypatch.setattr(
        hunyuan_video, "valid_lengths", lambda mask: (reads.append(mask), read(mask))[1]
    )
    with sparse(transformer, SPARSE, strict=True):
        call(transformer, inputs)
    assert len(reads) == 1
