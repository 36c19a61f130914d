"""What may be requested."""

import pytest

from ajour.demo.request import MOST_PIXELS, Request, Size

GOOD = ["a red circle", 3, 10, 17, 128, 256, 3.5]


def test_a_form_becomes_a_request():
    request = Request.of(" a  red\ncircle ", *GOOD[1:])
    assert request == Request("a red circle", 3, 10, Size(17, 128, 256), 3.5)
    assert str(request.size) == "17 frames, 256 x 128"
    assert str(Size(1, 64, 64)) == "64 x 64"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (0, "", "a prompt has 1 to 1000 characters, got 0"),
        (0, None, "a prompt has 1 to 1000 characters"),
        (0, "x" * 1001, "got 1001"),
        (1, -1, "seed must be from 0"),
        (1, 2**31, "seed must be from 0"),
        (1, None, "seed must be a whole number, got None"),
        (1, float("inf"), "seed must be a whole number"),
        (2, 1, "steps must be from 2 to 100, got 1"),
        (2, 101, "steps must be from 2 to 100, got 101"),
        (2, "many", "steps must be a whole number, got 'many'"),
        (3, 0, "frames must be from 1"),
        (3, 258, "frames must be from 1"),
        (4, 16, "height must be from 32"),
        (5, 4096, "width must be from 32"),
        (6, -1, "guidance must be from 0 to 30, got -1"),
        (6, float("nan"), "guidance must be from 0 to 30, got nan"),
        (6, "much", "guidance must be a number"),
    ],
)
def test_bounds(field, value, message):
    fields = list(GOOD)
    fields[field] = value
    with pytest.raises(ValueError, match=message):
        Request.of(*fields)


def test_videos_are_not_too_big():
    with pytest.raises(ValueError, match=f"at most {MOST_PIXELS:,}"):
        Request.of("x", 0, 10, 257, 2048, 2048, 3)
