"""Small searches of the page: progress, stops, and plans that can be used at once."""

from types import SimpleNamespace

import pytest

from ajour import sparse
from ajour.demo.device import DONE, STOPPED
from ajour.demo.heads import ShownPlan
from ajour.demo.search_views import outcome, reasons
from ajour.demo.searching import (
    COMPARING,
    MEASURING,
    TIMING,
    TRYING,
    Point,
    SearchProgress,
    SearchResult,
    search,
)
from ajour.demo.tab_search import checked_limit, checked_target
from ajour.search.settings import Target
from tests.demo.conftest import REQUEST, finish
from tests.pipelines.conftest import LATE, run


def submit(site, target, limit=300.0):
    return site.device.submit(
        "me",
        lambda pipe, job: search(pipe, job, target, REQUEST, site.model, limit),
        limit,
    )


def test_a_search_reports_its_frontier_and_ends_in_a_plan(site, pipe):
    job = submit(site, Target("density", 0.7))
    progress = [state for state in finish(job) if state is not None]
    assert job.state == DONE, job.error
    result = job.result
    assert result.met
    assert 0 < result.density <= 0.7
    assert result.shown.plan.provenance["made_by"].startswith("ajour search")
    assert any(state.frontier for state in progress)
    assert result.progress.verified
    for name, errors in result.shown.errors.items():
        assert errors.shape == (2, 2)
        assert name in result.shown.plan.assignments
    assert result.ended == ""
    text = outcome(result)
    assert "is met" in text
    assert "The search makes one plan of this density" in text
    assert result.request == REQUEST
    stages = [state.stage for state in progress]
    assert list(dict.fromkeys(stages))[:4] == [MEASURING, TIMING, COMPARING, TRYING]
    measured = [state for state in progress if state.stage == MEASURING]
    assert measured[-1].done == measured[-1].parts
    assert any(state.left is not None for state in measured)
    with sparse(pipe, result.shown.plan, strict=True):
        run(pipe, steps=4)


def test_a_stop_keeps_the_best_plan_so_far(site):
    job = submit(site, Target("psnr", 30.0))
    for now in job.watch(every=0.0):
        if now.progress is not None and now.progress.verified:
            site.device.stop("me")
    assert job.state == DONE, job.error
    assert job.result.progress.verified
    assert job.result.shown.plan.assignments is not None
    early = job.result.density is None
    assert job.result.ended == ("stopped" if early else "")
    assert ("Stopped: this is the best plan by then" in outcome(job.result)) == early


def test_time_that_is_up_before_a_plan_was_verified_ends_in_nothing(site):
    job = submit(site, Target("density", 0.7), 0.2)
    finish(job)
    assert job.state == STOPPED
    assert job.timed_out
    assert job.result is None


def ended(kind, value, verified, **changes):
    """The result of a search whose last verified plan was chosen."""
    *_, (_, speedup, psnr_db) = verified
    chosen = SimpleNamespace(
        speedup=speedup, psnr_db=psnr_db, quality=SimpleNamespace(ssim=0.99)
    )  # fmt: skip
    progress = SearchProgress(300.0, 5, verified=tuple(Point(*point) for point in verified))
    usual = {"density": 0.3, "target": Target(kind, value), "met": True, "request": REQUEST}
    return SearchResult(ShownPlan.of(LATE, "x"), chosen, progress=progress, **usual | changes)


def test_a_search_that_ends_slower_than_dense_is_not_good_news():
    text = outcome(ended("density", 0.4, [("", 0.76, 35.0)]))
    assert 'aj-verdict bad" role="alert">0.76x, slower than dense' in text
    assert "Choose a larger size" in text
    assert "good" not in text
    text = outcome(ended("psnr", 28, [("", 1.0, 99.0)], dense=True, met=False))
    assert "No sparse plan was faster than dense attention" in text
    assert 'aj-verdict good">1.9x faster' in outcome(ended("psnr", 28, [("", 1.9, 31.0)]))


def test_stops_and_time_limits_are_told_apart():
    stopped = outcome(ended("psnr", 28, [("", 1.9, 31.0)], ended="stopped"))
    late = outcome(ended("psnr", 28, [("", 1.9, 31.0)], ended="time"))
    assert "Stopped: this is the best plan by then" in stopped
    assert "time limit" not in stopped
    assert "The time limit of 5 min has passed" in late
    assert "Stopped" not in late


def test_dots_that_look_better_are_explained():
    text = " ".join(
        reasons(
            ended(
                "psnr", 30,
                [("", 2.6, 29.5), ("", 1.7, 36.0), ("", 2.6, 32.0), ("window", 2.7, 33.0),
                 ("", 2.5, 31.0)],
            )
        )
    )  # fmt: skip
    assert "takes the fastest plan, by predicted time, that reaches the target" in text
    assert "2.60x at 29.5 dB is faster, but misses the target" in text
    assert "1.70x at 36.0 dB is closer to dense, but slower" in text
    assert "2.60x at 32.0 dB was better when measured, not by prediction" in text
    assert "window for all heads, 2.70x at 33.0 dB, was better here" in text
    assert len(reasons(ended("psnr", 30, [("", 2.5, 31.0)]))) == 1


@pytest.mark.parametrize("minutes", [0, -1, 31, None, "1"])
def test_time_limits_are_bounded(minutes):
    with pytest.raises(ValueError, match="time limit must be over 0"):
        checked_limit(minutes)


def test_targets_are_checked():
    assert checked_target("psnr", 28) == Target("psnr", 28)
    for kind, value in (("psnr", None), ("psnr", "28"), ("beauty", 3), ("density", 2)):
        with pytest.raises(ValueError, match=r"target"):
            checked_target(kind, value)
