import numpy as np
import pytest

from ajour.pipelines.quality import psnr, ssim
from ajour.pipelines.video import BAR, side_by_side


def video(seed=0, shape=(3, 32, 40, 3)):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def test_psnr_of_a_known_error():
    clean = np.zeros((2, 16, 16, 3), dtype=np.float32)
    assert psnr(clean + 0.1, clean) == pytest.approx(20.0, abs=1e-4)
    assert psnr(clean, clean) == np.inf


def test_ssim_is_one_for_equal_videos_and_falls_with_noise():
    clean = video()
    noise = np.random.default_rng(1).standard_normal(clean.shape).astype(np.float32)
    scores = [ssim(np.clip(clean + s * noise, 0, 1), clean) for s in (0, 0.05, 0.2)]
    assert scores[0] == pytest.approx(1)
    assert scores[0] > scores[1] > scores[2]


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_shapes_must_agree(measure):
    with pytest.raises(ValueError, match="same shape"):
        measure(video(), video(shape=(3, 32, 41, 3)))


def test_side_by_side_keeps_the_pixels_under_a_label():
    one, other = video(0), video(1)
    pair = side_by_side([one, other], ["dense", "a label that is too long for its column"], gap=4)
    assert pair.shape == (3, 32 + BAR, 84, 3)
    assert np.array_equal(pair[:, BAR:, :40], one)
    assert np.array_equal(pair[:, BAR:, 44:], other)
    assert pair[:, :BAR, :40].max() > 0.5
