"""Previews: the data a step heads for, whatever the schedule and layout; and colours."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from ajour.demo.preview import Colours, Preview, clean_latents, gray, on_grid, scales, strip

RNG = np.random.default_rng(0)


def noised(levels, index, data, noise):
    s, n = levels[index]
    return (s * data + n * noise).astype(np.float32)


@pytest.mark.parametrize("kind", ["flow", "ddim", "mochi", "sigmas"])
def test_clean_latents_follow_from_two_mixtures(kind):
    if kind == "ddim":
        scheduler = DDIMScheduler()
        scheduler.set_timesteps(8)
    elif kind == "sigmas":
        sigmas = torch.tensor([14.6, 7.0, 3.0, 1.0, 0.3, 0.0])
        scheduler = SimpleNamespace(
            sigmas=sigmas, timesteps=torch.arange(5), config=SimpleNamespace()
        )
    else:
        scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=kind == "mochi")
        scheduler.set_timesteps(8)
    levels = scales(scheduler)
    data, noise = RNG.normal(size=(2, 3, 4, 5, 16)).astype(np.float32)
    for index in range(3):
        clean = clean_latents(
            noised(levels, index, data, noise), noised(levels, index + 1, data, noise), levels,
            index,
        )  # fmt: skip
        assert np.allclose(clean, data, atol=1e-3)


def test_after_the_last_level_the_latents_are_shown():
    after = np.ones((1, 2, 2, 4), np.float32)
    assert clean_latents(after * 0, after, [(1.0, 0.0)], 0) is after
    assert clean_latents(after * 0, after, [(0.5, 0.5), (0.5, 0.5)], 0) is after


@pytest.mark.parametrize(
    ("shape", "size", "grid"),
    [
        ((1, 16, 5, 8, 6), (17, 64, 48), (5, 8, 6, 16)),  # channels first
        ((1, 5, 12, 8, 6), (17, 64, 48), (5, 8, 6, 12)),  # frames first
        ((1, 16, 8, 6), (1, 64, 48), (1, 8, 6, 16)),  # an image
        ((1, 5 * 4 * 3, 64), (17, 64, 48), (5, 4, 3, 64)),  # packed video
        ((1, 4 * 3, 64), (1, 64, 48), (1, 4, 3, 64)),  # packed image
        ((2, 16, 5, 8, 6), (17, 64, 48), (5, 8, 6, 16)),  # a batch
    ],
)
def test_layouts(shape, size, grid):
    assert on_grid(torch.randn(shape), size).shape == grid


def test_an_unknown_layout_has_no_preview():
    assert on_grid(torch.randn(1, 35, 64), (17, 64, 48)) is None
    preview = Preview(SimpleNamespace(sigmas=torch.tensor([1.0, 0.0])), (17, 64, 48))
    assert preview.step(0, torch.randn(1, 35, 64)) is None


def test_colours_are_read_linearly_and_kept(tmp_path):
    latents = RNG.normal(size=(5, 8, 6, 16)).astype(np.float32)
    weight = RNG.normal(size=(17, 3)).astype(np.float32) * 0.03
    weight[-1] = 0.5
    small = Colours(weight)(latents)
    video = np.repeat(np.repeat(np.repeat(small, 4, 0)[3:], 8, 1), 8, 2)
    fitted = Colours.fit(latents, video)
    assert np.abs(fitted(latents) - small).max() < 0.02
    fitted.save(tmp_path / "colours.json")
    again = Colours.load(tmp_path / "colours.json")
    assert np.allclose(again.weight, fitted.weight, atol=1e-4)


def test_without_colours_the_strongest_component_is_gray():
    latents = np.zeros((2, 8, 8, 4), np.float32)
    latents[:, :, :4] = (1, -2, 0, 3)
    shown = gray(latents)
    assert shown.shape == (2, 8, 8, 3)
    assert abs(shown[0, 0, 0, 0] - shown[0, 0, 7, 0]) == pytest.approx(1)
    assert np.array_equal(shown[..., 0], shown[..., 1])


def test_a_strip_has_a_few_frames_of_one_size():
    assert strip(np.zeros((21, 45, 80, 3), np.float32)).shape == (72, 6 * 128, 3)
    assert strip(np.zeros((1, 8, 4, 3), np.float32)).shape == (128, 64, 3)


def test_a_run_starts_anew_at_step_0():
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(2)
    preview = Preview(scheduler, (1, 64, 64), None)
    for step in (0, 1, 0):
        assert preview.step(step, torch.randn(1, 16, 8, 8)).dtype == np.uint8
