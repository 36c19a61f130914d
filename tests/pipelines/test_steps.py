"""Following any scheduler through its runs, without touching it for others."""

import copy
import functools
import inspect
import types

import pytest
import torch
from diffusers import (
    CogVideoXDPMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LTXEulerAncestralRFScheduler,
    UniPCMultistepScheduler,
)

import ajour
from ajour.pipelines.session import session_of
from ajour.pipelines.steps import follow, noise_levels, watch_steps
from tests.pipelines.conftest import LATE, run

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SCHEDULERS = [
    FlowMatchEulerDiscreteScheduler(shift=3.0),
    UniPCMultistepScheduler(**FLOW),
    DPMSolverMultistepScheduler(**FLOW),
    EulerDiscreteScheduler(),
    DDIMScheduler(),
]


class Watch:
    """A user of a scheduler's follower, as a session is."""

    def __init__(self, scheduler):
        self.follower = follow(scheduler, self)

    @property
    def run(self):
        return self.follower.run

    def release(self):
        self.follower.release(self)


def drive(scheduler, t, sample):
    """One step, whatever the signature."""
    if isinstance(scheduler, CogVideoXDPMScheduler):
        return scheduler.step(torch.zeros_like(sample), None, t, t, sample)
    return scheduler.step(torch.zeros_like(sample), t, sample)


def walk(scheduler, steps):
    """Drives a scheduler; the noise level before each step."""
    watch = Watch(scheduler)
    scheduler.set_timesteps(steps)
    seen, sample = [], torch.randn(1, 4, 4, 4)
    for t in scheduler.timesteps:
        seen.append(watch.run.noise_levels[watch.run.step])
        sample = scheduler.step(torch.zeros_like(sample), t, sample, return_dict=False)[0]
    assert watch.run.step is None
    assert watch.run.steps_done == steps
    return seen, watch


# Some of diffusers' schedulers call numpy in a way that it deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_noise_levels_fall_and_start_over(scheduler, steps):
    scheduler = copy.deepcopy(scheduler)
    seen, watch = walk(scheduler, steps)
    assert len(seen) == steps
    assert all(a > b for a, b in zip(seen, seen[1:], strict=False))
    assert all(0 <= level <= 1 for level in seen)
    if steps > 1:
        assert seen[0] > 0.9
    watch.release()
    again, _ = walk(scheduler, steps)
    assert again == seen


@pytest.mark.parametrize(
    "scheduler",
    [FlowMatchEulerDiscreteScheduler(shift=3.0), LTXEulerAncestralRFScheduler()],
    ids=lambda s: type(s).__name__,
)
def test_the_noise_level_of_flow_matching_is_sigma(scheduler):
    scheduler.set_timesteps(7)
    assert noise_levels(scheduler) == pytest.approx(scheduler.sigmas[:7].tolist())
    assert noise_levels(scheduler)[0] == pytest.approx(1)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_noise_level_of_others_is_a_share():
    scheduler = EulerDiscreteScheduler()
    scheduler.set_timesteps(7)
    sigmas = scheduler.sigmas[:7].double()
    assert noise_levels(scheduler) == pytest.approx((sigmas / (1 + sigmas)).tolist())


def test_a_copied_scheduler_moves_on_its_own():
    scheduler = FlowMatchEulerDiscreteScheduler()
    watch = Watch(scheduler)
    twin = copy.deepcopy(scheduler)
    scheduler.set_timesteps(4)
    twin.set_timesteps(9)
    assert len(twin.timesteps) == 9
    assert len(scheduler.timesteps) == 4
    assert twin.sigmas.shape != scheduler.sigmas.shape
    watch.release()
    assert "step" not in scheduler.__dict__


def test_a_partial_trajectory_starts_at_its_noise_level():
    scheduler = FlowMatchEulerDiscreteScheduler()
    watch = Watch(scheduler)
    scheduler.set_timesteps(10)
    scheduler.set_begin_index(4)
    assert watch.run.step == 4
    assert watch.run.noise_levels[4] == pytest.approx(scheduler.sigmas[4].item())


@pytest.mark.parametrize(
    "scheduler", [*SCHEDULERS, CogVideoXDPMScheduler()], ids=lambda s: type(s).__name__
)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_left_out_timesteps_are_seen_in_the_first_step(scheduler):
    scheduler = copy.deepcopy(scheduler)
    watch = Watch(scheduler)
    scheduler.set_timesteps(10)
    sample = torch.randn(1, 4, 4, 4)
    for done, t in enumerate(scheduler.timesteps[4:]):
        watch.run.note(watch.run.step, f"step {done}")
        drive(scheduler, t, sample)
        assert watch.run.step == (5 + done if done < 5 else None)
    assert watch.run.steps == tuple(f"step {done}" for done in range(6))


def test_a_step_that_is_taken_back_and_made_again_counts_once():
    """As in the pipelines of Cosmos 1."""
    scheduler = EDMEulerScheduler()
    watch = Watch(scheduler)
    scheduler.set_timesteps(3)
    sample, seen = torch.zeros(1, 4), []
    for t in scheduler.timesteps:
        seen.append(watch.run.step)
        scheduler.step(sample, t, sample)
        scheduler._step_index -= 1
        scheduler.step(sample, t, sample)
    assert seen == [0, 1, 2]
    assert watch.run.step is None
    watch.release()


def test_steps_are_watched_but_not_those_of_a_copy():
    scheduler, sample, seen = FlowMatchEulerDiscreteScheduler(), torch.ones(1, 4), []
    scheduler.set_timesteps(3)
    with watch_steps(scheduler, lambda output, latents: seen.append((output, latents))):
        copied = copy.deepcopy(scheduler)
        copied.step(sample, copied.timesteps[0], sample)
        assert not seen
        assert "timestep" in inspect.signature(scheduler.step).parameters
        first = scheduler.step(sample, scheduler.timesteps[0], sample)
        last = scheduler.step(
            model_output=2 * sample, timestep=scheduler.timesteps[1], sample=sample,
            return_dict=False,
        )  # fmt: skip
    assert "step" not in vars(scheduler)
    scheduler.step(sample, scheduler.timesteps[2], sample)
    (output, latents), (named, after) = seen
    assert torch.equal(output, sample)
    assert torch.equal(named, 2 * sample)
    assert latents is first.prev_sample
    assert after is last[0]
    scheduler.step = patched = scheduler.step
    with pytest.raises(LookupError), watch_steps(scheduler, print):
        raise LookupError
    assert scheduler.step is patched


def test_followers_share_a_scheduler_and_leave_it_as_it_was():
    scheduler = FlowMatchEulerDiscreteScheduler()
    calls, sample = [], torch.randn(1, 4)
    stock = scheduler.step
    scheduler.step = lambda *args, **kwargs: (calls.append(1), stock(*args, **kwargs))[1]
    patched = scheduler.step
    one, other = Watch(scheduler), Watch(scheduler)
    scheduler.set_timesteps(3)
    scheduler.step(sample, scheduler.timesteps[0], sample)
    assert (one.run.step, other.run.step, len(calls)) == (1, 1, 1)
    one.release()
    scheduler.step(sample, scheduler.timesteps[1], sample)
    assert (other.run.step, len(calls)) == (2, 2)
    other.release()
    assert scheduler.step is patched
    assert "set_timesteps" not in scheduler.__dict__


@pytest.mark.parametrize("named", [False, True])
def test_what_wraps_a_followed_scheduler_stays_and_nothing_counts_twice(named):
    scheduler = FlowMatchEulerDiscreteScheduler()
    watch = Watch(scheduler)
    inner = scheduler.step

    def outer(*args, **kwargs):
        return inner(*args, **kwargs)

    outer = functools.wraps(inner)(outer) if named else outer
    scheduler.step = outer
    watch.release()
    assert scheduler.step is outer
    again = Watch(scheduler)
    scheduler.set_timesteps(3)
    sample = torch.randn(1, 4)
    scheduler.step(sample, scheduler.timesteps[0], sample)
    assert again.run.step == 1
    again.release()
    assert scheduler.step is outer


def test_a_copy_moves_on_its_own_also_with_a_method_of_its_own():
    scheduler = FlowMatchEulerDiscreteScheduler()
    kind = type(scheduler)
    scheduler.step = types.MethodType(lambda self, *args: kind.step(self, *args), scheduler)
    watch = Watch(scheduler)
    twin = copy.deepcopy(scheduler)
    twin.set_timesteps(3)
    sample = torch.randn(1, 4)
    twin.step(sample, twin.timesteps[0], sample)
    assert (scheduler.step_index, twin.step_index) == (None, 1)
    Watch(twin).release()
    assert twin.step.__self__ is twin
    watch.release()


def test_a_copy_of_a_followed_scheduler_can_be_followed_too():
    scheduler = FlowMatchEulerDiscreteScheduler()
    watch = Watch(scheduler)
    twin = copy.deepcopy(scheduler)
    other = Watch(twin)
    twin.set_timesteps(3)
    sample = torch.randn(1, 4)
    twin.step(sample, twin.timesteps[0], sample)
    assert (watch.run, other.run.step) == (None, 1)
    other.release()
    assert "step" not in twin.__dict__


def test_a_dropped_follower_leaves_a_working_scheduler():
    scheduler = FlowMatchEulerDiscreteScheduler()
    Watch(scheduler)
    scheduler.set_timesteps(3)
    sample = torch.randn(1, 4)
    scheduler.step(sample, scheduler.timesteps[0], sample)


def test_a_scheduler_without_noise_levels_is_refused():
    with pytest.raises(TypeError, match=r"object.*sigmas"):
        follow(object(), Watch)


def test_steps_of_two_runs(pipe):
    ajour.enable(pipe, LATE)
    for steps in (4, 6):
        run(pipe, steps=steps)
        phases = session_of(pipe).steps
        assert len(phases) == steps
        assert phases[0] == "dense"
        assert set(phases[2:]) == {"sparse"}
