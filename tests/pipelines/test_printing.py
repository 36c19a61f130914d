"""What is printed has no more digits than were measured, and says what to make of it."""

from dataclasses import replace

import numpy as np
import pytest

from ajour.pipelines.generate import Report, Sample, compare
from ajour.pipelines.measures import MEASURES
from ajour.pipelines.printing import advice, report_rows, rough
from ajour.pipelines.progress import Progress
from ajour.pipelines.quality import reported
from ajour.search.bench import bench_rows
from tests.pipelines.conftest import SPARSE

REPORT = Report(
    prompt="a ring", seed=0, steps=20, grid="13x16x16", density=0.3514, mean_density=0.1329,
    sparse_steps=5, reused_steps=14, dense_seconds=76.6912, sparse_seconds=17.3621,
    speedup=4.4172, psnr_db=33.12, ssim=0.989, perceptual=0.04, banding=0.4, backend="cpu",
    compiled=False, device="CPU", fallbacks=(), versions={},
    dense_seconds_each=(76.6912,), sparse_seconds_each=(17.3621,),
)  # fmt: skip


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (4.4172, 2, "4.4"), (4.4172, 3, "4.42"), (76.6912, 2, "77"), (0.0312, 2, "0.031"),
        (157.3, 2, "160"), (1573.2, 3, "1,570"), (9.96, 2, "10"), (1.0, 2, "1"),
    ],
)  # fmt: skip
def test_numbers_are_rounded_to_their_digits(value, digits, text):
    assert rough(value, digits) == text


def test_one_pair_of_runs_has_two_digits_and_says_so():
    rows = dict(report_rows(REPORT))
    assert rows["speed-up"] == "4.4x, measured on one pair of runs; --repeats 3 gives a median"
    assert rows["denoising, dense"] == "77 s"
    assert rows["steps"] == "20: 1 dense, 5 sparse, 14 reused"
    assert rows["density"] == "0.35 in sparse steps, 0.13 in all"


def test_several_pairs_have_a_median_and_a_range():
    several = replace(
        REPORT, dense_seconds_each=(70.0, 76.7, 90.0), sparse_seconds_each=(17.4, 17.0, 18.0)
    )
    assert dict(report_rows(several))["speed-up"] == (
        "4.42x, median times of 3 pairs of runs, whose speed-ups are 4.02 to 5"
    )


def test_no_faster_than_dense_is_said_with_what_to_do():
    slow = replace(REPORT, speedup=1.04)
    assert advice(slow, automatic=False).startswith("Sparse is no faster than dense here.")
    assert "--size default" in advice(slow, automatic=False)
    assert "--plan" not in advice(slow, automatic=False)
    assert "to --plan" in advice(slow, automatic=True)
    assert advice(REPORT, automatic=True) == ""


def test_equal_videos_are_said_to_be_equal_and_no_others():
    assert MEASURES["psnr_db"].show(reported(float("inf"))) == "equal videos"
    assert MEASURES["psnr_db"].show(reported(120.0)) == "98.99 dB"
    assert MEASURES["psnr_db"].show(reported(33.123)) == "33.12 dB"
    assert dict(report_rows(replace(REPORT, psnr_db=99.0)))["PSNR"] == "equal videos"
    assert MEASURES["ssim"].show(1.0) == "1.0000"


def test_pairs_of_runs_are_made_in_turns_and_counted(pipe, monkeypatch):
    seconds = iter((10.0, 4.0, 14.0, 5.0, 11.0, 9.0))
    labels, told = [], []
    video = np.zeros((5, 16, 16, 3), np.float32)

    def run(pipe, prompt, seed, label, on_step, **options):
        labels.append(label)
        return Sample(video, next(seconds), ("dense",) if label == "dense" else ("sparse",))

    monkeypatch.setattr("ajour.pipelines.generate.sample", run)
    report = compare(pipe, SPARSE, "a ring", 0, repeats=3, on_run=told.append).report
    assert labels == ["dense", "sparse"] * 3
    assert told[:2] == ["dense run 1 of 3", "sparse run 1 of 3"]
    assert (report.dense_seconds, report.sparse_seconds) == (11.0, 5.0)
    assert report.speedup == pytest.approx(2.2)
    assert report.to_dict()["dense_seconds_each"] == [10.0, 14.0, 11.0]


def test_bench_rows_have_units_and_one_meaning():
    result = {
        "prompts": ["a", "b"], "psnr_db_each": [30.0, 31.0], "psnr_db": 30.5,
        "pass_seconds": {"dense": 0.5312, "sparse": 0.2}, "run_speedup": 1.234, "speedup": 2.345,
        "dense_run_seconds": 12.34, "run_seconds": 10.0,
    }  # fmt: skip
    rows = dict(bench_rows(result))
    assert rows["speed-up of whole runs"] == (
        "1.2x: 12 s dense, 10 s with the plan, medians of 2 pairs of runs"
    )
    assert rows["speed-up by passes"].startswith("2.3x: single passes")
    assert rows["a dense pass"] == "530 ms"
    assert rows["a pass of sparse"] == "200 ms"
    assert rows["PSNR of each prompt"] == "30.0 dB, 31.0 dB"
    one = result | {"prompts": ["a"], "psnr_db_each": [30.0]}
    assert "1 pair of runs" in dict(bench_rows(one))["speed-up of whole runs"]
    assert "PSNR of each prompt" not in dict(bench_rows(one))


def test_progress_is_a_line_per_stage_and_half_a_minute(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr("ajour.pipelines.progress.time.monotonic", lambda: clock[0])
    progress = Progress(steps=20)
    progress.stage("loading the model")
    for step, seconds in enumerate((10, 29, 31)):
        clock[0] = 100 + seconds
        progress.step("dense", step, None)
    assert capsys.readouterr().err == (
        "    0.0 s  loading the model\n   31.0 s  dense: step 3 of 20 is done\n"
    )
