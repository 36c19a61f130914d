"""What viewers see: the perceptual distance, and bands in flat regions."""

import runpy
import sys

import numpy as np
import pytest

from ajour.pipelines import quality
from ajour.pipelines.banding import LIMIT, banding
from ajour.pipelines.measures import MEASURES, explain
from ajour.pipelines.quality import PERCEPTUAL_FRAMES, perceptual
from tests.pipelines.test_video import video

FLAT = np.full((3, 128, 96, 3), 0.3, dtype=np.float32)


def levels(values):
    """Values in levels of 255, broadcast to the flat video's shape, as a share of 1."""
    return np.broadcast_to(np.asarray(values, dtype=np.float32) / 255, FLAT.shape)


def bands(amplitude, height=32):
    """Horizontal bands that lie above and below the mean by an amplitude, in turns."""
    rows = np.arange(FLAT.shape[1]) // height % 2
    return levels(amplitude * (2.0 * rows - 1)[None, :, None, None])


def noise(amplitude):
    return levels(amplitude * np.random.default_rng(0).standard_normal(FLAT.shape))


@pytest.mark.parametrize("amplitude", [0.5, 2.0, 5.0])
def test_bands_of_a_flat_video_count_by_their_amplitude(amplitude):
    assert banding(FLAT + bands(amplitude), FLAT) == pytest.approx(amplitude, rel=0.15)


def test_noise_of_the_energy_of_bands_counts_little():
    assert banding(FLAT + noise(2.0), FLAT) < 0.1 * banding(FLAT + bands(2.0), FLAT)


def test_bands_do_not_count_where_the_reference_has_texture():
    texture = FLAT.copy()
    texture[:, :, :48] += 0.2 * video(shape=(3, 128, 48, 3))
    assert banding(FLAT + noise(40) + bands(4), FLAT + noise(40)) == 0
    changed = texture.copy()
    changed[:, :, :48] += bands(4)[:, :, :48]
    assert banding(changed, texture) < 0.1
    assert banding(texture + bands(4), texture) == pytest.approx(4, rel=0.15)


def test_a_uniform_shift_is_no_band():
    assert banding(FLAT + levels([8.0, -3.0, 5.0]), FLAT) < 1e-3
    shifted = banding(FLAT + levels(8.0) + bands(2.0), FLAT)
    assert shifted == pytest.approx(banding(FLAT + bands(2.0), FLAT), abs=1e-3)


def test_content_that_moved_counts_at_most_as_the_limit():
    moved = FLAT.copy()
    moved[:, 40:60, 40:60] = 1.0
    share = 20 * 20 / (128 * 96)
    assert 0 < banding(moved, FLAT) < 1.1 * LIMIT * share**0.5


def test_equal_videos_have_neither_distance_nor_bands():
    assert perceptual(FLAT, FLAT) == banding(FLAT, FLAT) == 0


def test_the_perceptual_distance_grows_with_the_difference_up_to_one():
    distances = [perceptual(np.clip(FLAT + noise(strength), 0, 1), FLAT) for strength in (2, 8, 32)]
    assert 0 < distances[0] < distances[1] < distances[2] < 1
    assert 0.9 < perceptual(np.ones_like(FLAT), np.zeros_like(FLAT)) <= 1


def test_few_frames_are_compared_evenly_spread():
    long = video(shape=(3 * PERCEPTUAL_FRAMES - 2, 16, 16, 3))
    sampled = slice(None, None, 3)
    assert perceptual(1 - long, long) == perceptual((1 - long)[sampled], long[sampled])


@pytest.mark.parametrize("measure", [perceptual, banding])
def test_shapes_must_agree(measure):
    with pytest.raises(ValueError, match="same shape"):
        measure(video(), video(shape=(3, 32, 41, 3)))


def test_the_library_is_loaded_on_first_use(monkeypatch):
    monkeypatch.setitem(sys.modules, "flip_evaluator", None)  # an import of it fails
    module = runpy.run_path(quality.__file__)
    with pytest.raises(ImportError):
        module["perceptual"](FLAT, FLAT)


def test_every_measure_says_its_unit_and_what_a_value_means():
    assert list(MEASURES) == ["psnr_db", "ssim", "perceptual", "banding", "flicker"]
    explained = explain(["banding", "psnr_db"])
    assert list(explained) == ["psnr_db", "banding"]
    assert explained["banding"]["unit"] == "levels of 255"
    assert all("\n" not in text and text for text in explained["banding"].values())
