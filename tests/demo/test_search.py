"""Small searches of the page: progress, stops, and plans that can be used at once."""

import pytest

from ajour import sparse
from ajour.demo.device import DONE, STOPPED
from ajour.demo.render import render
from ajour.demo.searching import search
from ajour.demo.tab_search import checked_limit, checked_target
from ajour.search.settings import Target
from tests.demo.conftest import REQUEST, finish
from tests.pipelines.conftest import run


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
    assert "is met" in render("outcome", result=result)
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
    text = render("outcome", result=job.result)
    assert ("Ended early" in text) == (job.result.density is None)


def test_time_that_is_up_before_a_plan_was_verified_ends_in_nothing(site):
    job = submit(site, Target("density", 0.7), 0.2)
    finish(job)
    assert job.state == STOPPED
    assert job.result is None


@pytest.mark.parametrize("minutes", [0, -1, 31, None, "1"])
def test_time_limits_are_bounded(minutes):
    with pytest.raises(ValueError, match="time limit must be over 0"):
        checked_limit(minutes)


def test_targets_are_checked():
    assert checked_target("psnr", 28) == Target("psnr", 28)
    for kind, value in (("psnr", None), ("psnr", "28"), ("beauty", 3), ("density", 2)):
        with pytest.raises(ValueError, match=r"target"):
            checked_target(kind, value)
