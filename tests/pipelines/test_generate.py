"""Hooks of the main job: every step is told, and what the hook raises ends the run."""

import json

import numpy as np
import pytest

from ajour import Captured
from ajour.pipelines.enable import is_enabled
from ajour.pipelines.generate import check_promptable, compare, sample
from tests.pipelines.conftest import FULL, SPARSE, make_plan, make_transformer

CALL = {
    "num_frames": 5, "height": 64, "width": 64, "num_inference_steps": 3, "guidance_scale": 1.0,
    "max_sequence_length": 32,
}  # fmt: skip


def test_on_step_is_told_every_step_and_changes_nothing(pipe):
    told = []

    def on_step(label, step, latents):
        told.append((label, step, tuple(latents.shape)))

    found = compare(pipe, SPARSE, "a red circle", 0, on_step=on_step, **CALL)
    shape = (1, 16, 2, 8, 8)
    assert told == [(label, step, shape) for label in ("dense", "sparse") for step in range(3)]
    plain = sample(pipe, "a red circle", 0, **CALL)
    assert np.array_equal(found.dense.video, plain.video)


def test_the_time_of_on_step_does_not_count(pipe, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("ajour.pipelines.generate.now", lambda device: clock[0])
    forward = pipe.transformer.register_forward_pre_hook(lambda *_: advance(2))

    def advance(seconds):
        clock[0] += seconds

    timed = sample(pipe, "a red circle", 0, on_step=lambda *_: advance(100), **CALL)
    forward.remove()
    assert timed.seconds == 2 * 3


def test_what_on_step_raises_ends_the_run_and_leaves_the_pipeline_as_it_was(pipe):
    steps = []

    def stop(label, step, _latents):
        steps.append((label, step))
        if label == "sparse" and step == 1:
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        compare(pipe, SPARSE, "a red circle", 0, on_step=stop, **CALL)
    assert steps[-1] == ("sparse", 1)
    assert not is_enabled(pipe)


def test_two_transformers_of_which_one_ran_no_captured_pattern(make_pipe):
    pipe = make_pipe(transformer_2=make_transformer(1), boundary_ratio=0.8)
    plan = make_plan([Captured([0.5, 0.5, 0.5, 1.0])] * 2, ((1.0, "dense"), (0.8, "sparse")))
    size = {"num_frames": 9, "height": 128, "width": 112, "num_inference_steps": 6}
    report = compare(pipe, plan, "a red circle", 0, **CALL | size).report
    assert report.sparse_steps > 0
    assert 0 < report.density <= 1


def test_equal_videos_are_written_as_a_number(pipe, monkeypatch):
    monkeypatch.setattr("ajour.pipelines.generate.psnr", lambda *_: float("inf"))
    report = compare(pipe, FULL, "a red circle", 0, **CALL).report
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["psnr_db"] == 99


def test_a_pipeline_without_a_scheduler_is_refused():
    class Silent:
        def __call__(self, prompt):
            raise AssertionError

    with pytest.raises(TypeError, match=r"Silent has no scheduler with a step.*ajour.enable"):
        sample(Silent(), "a red circle", 0)


def test_a_pipeline_that_needs_an_image_is_refused():
    class FromImage:
        def __call__(self, image, prompt=None, *, height=64, **more):
            raise AssertionError

    with pytest.raises(TypeError, match=r"FromImage needs more than a prompt \(image\)"):
        check_promptable(FromImage())
