"""What the training of the mini pipeline is made of, at the smallest sizes."""

import random

import pytest
import torch
from diffusers import WanPipeline

from tools.mini import captions, model
from tools.mini.clips import Clips, latent_cells
from tools.mini.train_transformer import Clock, Share, flow_loss, noise_levels
from tools.mini.warm_start import start_from

SMALL, LARGE = (1, 32, 32), (5, 32, 64)


@pytest.fixture(scope="module")
def tokenizer():
    return model.build_tokenizer(captions.corpus(300, 0))


@pytest.fixture
def clips(tokenizer):
    """A full store: four clips, because only whole batches fit into five places."""
    store = Clips(model.build_vae().eval(), tokenizer, LARGE, most=5, batch=2)
    rng = random.Random(0)
    for _ in range(2):
        store.add(rng)
    return store


def test_a_full_store_replaces_its_oldest_clips(clips):
    assert len(clips) == 4
    oldest = clips.latents[:2].clone()
    kept = clips.latents[2:4].clone()
    clips.add(random.Random(1))
    assert clips.made == 6
    assert not torch.equal(clips.latents[:2], oldest)
    assert torch.equal(clips.latents[2:4], kept)


def test_cells_with_things_are_few_and_not_none(clips):
    share = clips.things[: len(clips)].float().mean()
    assert 0 < share < 0.7


def test_latent_cells_follow_the_vaes_frames():
    covered = torch.zeros(1, 9, 16, 24, dtype=torch.bool)
    covered[0, 0, 3, 3] = True  # the first frame stands alone
    covered[0, 4, 15, 23] = True  # the last of frames 1 to 4
    covered[0, 5, 0, 8] = True  # the first of frames 5 to 8
    cells = latent_cells(covered)
    assert cells.shape == (1, 3, 2, 3)
    assert cells.nonzero().tolist() == [[0, 0, 0, 0], [0, 1, 1, 2], [0, 2, 0, 1]]


def test_more_layers_start_as_the_same_function(tmp_path, tokenizer):
    torch.manual_seed(1)
    small = model.build_text_encoder()
    small.encoder.block = small.encoder.block[:2]
    small.config.num_layers = 2
    transformer = model.build_transformer()
    folder = model.assemble(model.build_vae(), small, tokenizer, transformer, tmp_path / "old")
    old = WanPipeline.from_pretrained(folder, dtype=torch.float32)

    grown, fresh = model.build_text_encoder(), model.build_transformer()
    start_from(folder, fresh, grown)
    text = old.tokenizer(["a red circle on the left moves right"], return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(
            grown(**text).last_hidden_state, old.text_encoder(**text).last_hidden_state
        )
    weights = old.transformer.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in fresh.state_dict().items())


def test_time_is_dealt_out_by_share():
    clock = Clock({SMALL: Share(4, 0.75, 0.2), LARGE: Share(4, 0.25, 0.8)})
    for _ in range(400):
        size = clock.next(early=True)
        clock.count(True, size, 3.0 if size == LARGE else 1.0)
    spent = clock.spent[0]
    assert spent[SMALL] / sum(spent.values()) == pytest.approx(0.75, abs=0.02)
    assert clock.spent[1] == {SMALL: 0.0, LARGE: 0.0}


def test_the_time_that_a_first_step_compiles_is_not_booked():
    clock = Clock({SMALL: Share(4, 0.5, 0.5), LARGE: Share(4, 0.5, 0.5)})
    counts = {SMALL: 0, LARGE: 0}
    for _ in range(41):
        size = clock.next(early=False)
        clock.count(False, size, 100.0 if size == SMALL and not counts[SMALL] else 1.0)
        counts[size] += 1
    assert abs(counts[SMALL] - counts[LARGE]) <= 2


def test_a_size_without_a_share_gets_no_time():
    clock = Clock({SMALL: Share(4, 1.0, 0.5), LARGE: Share(4, 0.0, 0.5)})
    sizes = []
    for _ in range(20):
        sizes.append(clock.next(early=True))
        clock.count(True, sizes[-1], 1.0)
    assert set(sizes) == {SMALL}


def test_longer_clips_see_more_noise():
    torch.manual_seed(0)
    few, many = (noise_levels(20_000, tokens, torch.device("cpu")) for tokens in (320, 32_760))
    assert 0 <= few.min() <= many.max() <= 1
    assert many.median() > few.median() + 0.05


def test_cells_with_things_weigh_more(clips, monkeypatch):
    """A model that is wrong by one in cells with things, and right elsewhere."""

    class WrongAtThings(torch.nn.Module):
        def forward(self, mixed, level, text, return_dict):
            return (clips.things[:1, None].expand_as(mixed).to(mixed),)

    monkeypatch.setattr(clips, "made", 1)  # every row is the first clip
    clips.latents[0] = 0
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)  # noise minus data is zero
    ids = torch.zeros(1, 64, dtype=torch.int32)
    loss = flow_loss(
        WrongAtThings(), model.build_text_encoder(), clips, (ids, torch.ones_like(ids)), 2, 64
    )
    share = float(clips.things[0].float().mean())
    assert float(loss) == pytest.approx(4 * share / (1 + 3 * share), rel=1e-4)
