"""One queue for the device: order, stops, limits, failures."""

import threading
import time

import pytest
import torch

from ajour import PlanError
from ajour.demo.device import DONE, FAILED, RUNNING, STOPPED, Device, Refused, Stopped


class Pipe:
    """As much of a pipeline as the queue needs."""

    def __init__(self):
        self.transformer = torch.nn.Identity()


@pytest.fixture
def device():
    device = Device(Pipe)
    assert device.ready.wait(10)
    yield device
    device.close()


def over(job):
    for _ in job.watch(every=0.0):
        pass
    return job.state


def passes(pipe, job):
    """Forward passes without an end."""
    while True:
        job.report("at work")
        pipe.transformer(torch.zeros(1))
        time.sleep(0.01)


def running(job):
    while job.state != RUNNING or job.progress is None:  # pytest's timeout ends a hung test
        time.sleep(0.01)


def test_jobs_run_one_after_another_in_their_order(device):
    done, at_once, most = [], 0, []

    def work(name):
        def run(_pipe, _job):
            nonlocal at_once
            at_once += 1
            most.append(at_once)
            time.sleep(0.05)
            at_once -= 1
            done.append(name)
            return name

        return run

    jobs = [device.submit(name, work(name)) for name in "abcd"]
    assert [device.ahead(job) for job in jobs[1:]] == [1, 2, 3]
    assert [over(job) for job in jobs] == [DONE] * 4
    assert done == list("abcd")
    assert max(most) == 1
    assert jobs[2].result == "c"


def test_a_stop_ends_a_run_at_its_next_pass_and_nobody_elses(device):
    mine = device.submit("me/generate", passes)
    other = device.submit("you/generate", lambda *_: "done")
    running(mine)
    assert device.stop("me/generate")
    assert over(mine) == STOPPED
    assert over(other) == DONE


def test_a_waiting_run_is_stopped_without_running(device):
    mine = device.submit("me/generate", passes)
    ran = []
    other = device.submit("you/generate", lambda *_: ran.append(1))
    running(mine)
    assert device.stop("you")  # all of a user's
    assert over(other) == STOPPED
    assert mine.state == RUNNING
    device.stop("me")
    assert over(mine) == STOPPED
    assert not ran
    assert not device.stop("nobody")


def test_names_that_begin_alike_are_others(device):
    mine = device.submit("me2/generate", passes)
    running(mine)
    assert not device.stop("me")
    assert device.stop("me2")


def test_one_run_per_user_and_a_short_queue(device):
    first = device.submit("me", passes)
    with pytest.raises(Refused, match="a run of yours is still in the queue"):
        device.submit("me", passes)
    for index in range(7):
        device.submit(f"u{index}", passes)
    with pytest.raises(Refused, match="8 runs are waiting already"):
        device.submit("late", passes)
    for index in range(7):
        device.stop(f"u{index}")
    device.stop("me")
    assert over(first) == STOPPED
    assert over(device.submit("me", lambda *_: 1)) == DONE


def test_the_queue_has_eight_places(device):
    for name in "abcdefgh":
        device.submit(name, passes)
    with pytest.raises(Refused, match="8 runs are waiting already"):
        device.submit("i", passes)


def test_an_address_has_half_of_the_places():
    device = Device(Pipe, most=4)
    for name in "ab":
        device.submit(name, passes, address="1.2.3.4")
    with pytest.raises(Refused, match="2 runs from your address are waiting"):
        device.submit("c", passes, address="1.2.3.4")
    device.submit("d", passes, address="5.6.7.8")
    device.close()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PlanError("the plan is for another model"), "the plan is for another model"),
        (RuntimeError("CUDA out of memory"), "CUDA out of memory"),
        (KeyError("weight"), "KeyError: 'weight'"),
        (ValueError(), "ValueError"),
    ],
    ids=str,
)
def test_a_failure_is_shown_and_the_queue_goes_on(device, error, message):
    def fail(*_):
        raise error

    job = device.submit("me", fail)
    assert over(job) == FAILED
    assert job.error == message
    assert over(device.submit("me", lambda *_: 1)) == DONE
    job.stop()
    device.pipe.transformer(torch.zeros(1))  # the failed job no longer checks passes


def test_time_is_limited(device):
    caught = []

    def work(pipe, job):
        try:
            passes(pipe, job)
        except Stopped:
            caught.append(1)
            raise

    assert over(device.submit("me", work, 0.2)) == STOPPED
    assert caught


def test_a_model_that_cannot_be_loaded_is_said():
    def load():
        raise FileNotFoundError("the bundled model is missing")

    device = Device(load)
    job = device.submit("me", lambda *_: 1)
    assert over(job) == FAILED
    assert job.error == "the model could not be loaded: the bundled model is missing"
    device.close()


def test_closing_ends_what_runs():
    device = Device(Pipe)
    job = device.submit("me", passes)
    running(job)
    device.close()
    assert job.state == STOPPED


def test_watching_shows_the_latest_and_the_end(device):
    reported, gate = threading.Event(), threading.Event()

    def work(_pipe, job):
        for number in range(100):
            job.report(number)
        reported.set()
        gate.wait(10)
        return "end"

    job = device.submit("me", work)
    assert reported.wait(10)
    seen = []
    for now in job.watch(every=0.0):
        seen.append((now.state, now.progress))
        gate.set()
    assert {progress for _, progress in seen} == {99}
    assert seen[-1][0] == DONE
