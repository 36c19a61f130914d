"""A size that the pipeline would round is refused, or said where that is only seen afterwards."""

from types import SimpleNamespace

import pytest

from ajour.pipelines.calls import fit_call, resized, whole_call
from ajour.pipelines.usage import BadUsage


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"num_frames": 10}, "WanPipeline makes 4 n . 1 frames, got 10: give 9 or 13"),
        ({"num_frames": 3}, "got 3: give 1 or 5"),
        ({"height": 100}, "takes a height that is a multiple of 16, got 100: give 96 or 112"),
        ({"width": 7}, "takes a width that is a multiple of 16, got 7: give 16"),
    ],
)
def test_a_size_that_would_be_rounded_is_refused(pipe, asked, said):
    with pytest.raises(BadUsage, match=said):
        fit_call(pipe, asked)


def test_sizes_that_can_be_made_are_kept(pipe):
    call = {"num_frames": 9, "height": 96, "width": 112}
    assert fit_call(pipe, call) == call
    assert fit_call(pipe, {"num_frames": 1}) == {"num_frames": 1}


def test_a_pipeline_that_does_not_say_its_factors_is_let_through():
    class Image:
        transformer = SimpleNamespace(config=SimpleNamespace(patch_size=2))

        def __call__(self, prompt, height=64):
            raise AssertionError

    assert fit_call(Image(), {"height": 101}) == {"height": 101}


def test_another_size_than_was_asked_for_is_said():
    call = {"num_frames": 10, "height": 96}
    assert resized(call, (10, 96, 112, 3)) == ""
    assert resized({}, (10, 96, 112, 3)) == ""
    assert resized(call, (9, 96, 112, 3)) == (
        "the pipeline changed the size: 10 x 96 x ? were asked for, 9 x 96 x 112 were made"
    )


def test_a_report_has_what_the_pipeline_chose_by_itself(pipe):
    call = whole_call(pipe, {"num_frames": 9, "image": object()})
    assert call["num_frames"] == 9
    assert call["guidance_scale"] == 5.0
    assert call["max_sequence_length"] == 512
    assert "image" not in call
