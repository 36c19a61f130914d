import cv2
import numpy as np
import pytest

from ajour.search.verify.flicker import warp_error


@pytest.fixture
def moving():
    """A smooth texture that moves two pixels a frame."""
    noise = np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    texture = cv2.GaussianBlur(noise, (11, 11), 3)
    return np.stack([np.roll(texture, 2 * index, axis=1) for index in range(5)])


def test_motion_is_no_flicker(moving):
    still = np.repeat(moving[:1], 5, axis=0)
    assert warp_error(still) == 0
    plain = np.square(np.diff(moving[:, :, 20:-20].astype(float) / 255, axis=0)).mean()
    assert warp_error(moving) < 0.2 * plain


def test_flicker_counts_by_its_square(moving):
    gray = (moving // 2 + 64).astype(np.uint8)
    errors = []
    for strength in (10, 20):
        flicker = strength * (np.arange(5) % 2)[:, None, None, None]
        errors.append(warp_error((gray + flicker).astype(np.uint8), gray))
    assert errors[0] == pytest.approx((10 / 255) ** 2, rel=0.1)
    assert errors[1] == pytest.approx(4 * errors[0], rel=0.1)


def test_one_frame_does_not_flicker():
    assert warp_error(np.zeros((1, 16, 16, 3), np.uint8)) == 0
