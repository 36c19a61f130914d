"""Which step a pass belongs to is known or said to be unknown; a pass leaves nothing behind."""

import copy
import threading

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, WanPipeline

import ajour
from ajour.pipelines.session import session_of
from ajour.processors import SparseProcessor
from tests.copies import by_copy, by_pickle, by_torch
from tests.pipelines.conftest import LATE, SPARSE, latents, make_plan, make_transformer, run

STEPS = 6


def other_scheduler(shift=5.0):
    return FlowMatchEulerDiscreteScheduler(shift=shift)


def alone(make_pipe, **options):
    """What a pipeline gives that is enabled by itself, with the plan LATE."""
    pipe = make_pipe(**options)
    with ajour.sparse(pipe, LATE, strict=True):
        return run(pipe, steps=STEPS), session_of(pipe).steps


def twin_of(pipe):
    return WanPipeline(**pipe.components | {"scheduler": other_scheduler()})


def from_pipe(pipe):
    twin = WanPipeline.from_pipe(pipe, scheduler=other_scheduler())
    twin.set_progress_bar_config(disable=True)
    return twin


@pytest.mark.filterwarnings("ignore:.*from_pipe", "ignore:__array__")
@pytest.mark.parametrize("second", [twin_of, from_pipe])
@pytest.mark.parametrize("before", ["nothing", "a whole run", "half a run"])
def test_a_second_pipeline_is_followed_by_its_own_scheduler(make_pipe, second, before):
    expected, steps = alone(make_pipe, scheduler=other_scheduler())
    pipe = make_pipe()
    twin = second(pipe)
    with ajour.sparse(pipe, LATE, strict=True):
        if before == "a whole run":
            run(pipe, steps=3)
        if before == "half a run":
            with pytest.raises(InterruptedError):
                run(pipe, steps=9, callback_on_step_end=interrupt_at(6))
        assert torch.equal(run(twin, steps=STEPS), expected)
        assert session_of(pipe).steps == steps


def interrupt_at(last):
    def callback(_pipe, step, _time, kwargs):
        if step == last:
            raise InterruptedError
        return kwargs

    return callback


def test_two_pipelines_in_turns_keep_their_own_runs(make_pipe):
    """A pipeline runs as a whole while another one, of the same transformer, is in its middle."""
    expected, _ = alone(make_pipe)
    pipe = make_pipe()
    twin = twin_of(pipe)

    def between(_pipe, step, _time, kwargs):
        if step == 2:
            run(twin, steps=3)
        return kwargs

    with ajour.sparse(pipe, LATE, strict=True):
        assert torch.equal(run(pipe, steps=STEPS, callback_on_step_end=between), expected)


class Pipeline:
    """The least that a pipeline is: a transformer, a scheduler, and a loop that uses both."""

    def __init__(self):
        self.transformer = make_transformer()
        self.scheduler = other_scheduler()

    def __call__(self, each_step=lambda pipe, index: None):
        torch.manual_seed(0)
        inputs = latents((3, 8, 7))
        sample = inputs["hidden_states"]
        self.scheduler.set_timesteps(STEPS)
        for index, t in enumerate(self.scheduler.timesteps):
            call = inputs | {"hidden_states": sample, "timestep": t[None]}
            velocity = self.transformer(**call)[0]
            sample = self.scheduler.step(velocity, t, sample, return_dict=False)[0]
            each_step(self, index)
        return sample


def test_a_scheduler_that_was_refused_in_mid_run_and_put_back():
    pipe = Pipeline()
    scheduler = pipe.scheduler
    with ajour.sparse(pipe, LATE, strict=True):
        pipe()
        steps = session_of(pipe).steps

    class Blind:
        """A scheduler that does the same steps but has no noise levels."""

        def step(self, *args, **kwargs):
            return scheduler.step(*args, **kwargs)

    def swap(pipe, index):
        pipe.scheduler = Blind() if index == 2 else scheduler

    with ajour.sparse(pipe, LATE):
        pipe(swap)
        assert "Blind has neither sigmas" in ajour.summary(pipe).fallbacks[0]
        assert session_of(pipe).steps == (*steps[:3], "dense", *steps[4:])
    assert steps[3:] == ("sparse",) * 3


def test_another_scheduler_after_transformers_were_enabled_one_by_one(make_pipe):
    second = {"transformer_2": make_transformer(1), "boundary_ratio": 0.8}
    expected, steps = alone(make_pipe, scheduler=other_scheduler(), **second)
    pipe = make_pipe(**second)
    for transformer in (pipe.transformer, pipe.transformer_2):
        ajour.enable(transformer, LATE, scheduler=pipe.scheduler, strict=True)
    pipe.scheduler = other_scheduler()
    assert torch.equal(run(pipe, steps=STEPS), expected)
    assert session_of(pipe).steps == steps


@pytest.mark.parametrize("plan", [LATE, SPARSE, "auto"], ids=["late", "always", "auto"])
def test_passes_without_set_timesteps_run_stock(pipe, plan):
    inputs = latents((3, 8, 7))
    stock = pipe.transformer(**inputs)[0]
    with ajour.sparse(pipe, plan):
        assert torch.equal(pipe.transformer(**inputs)[0], stock)
        assert "no set_timesteps" in ajour.summary(pipe).fallbacks[0]
    with ajour.sparse(pipe, plan, strict=True), pytest.raises(RuntimeError, match="strict.*step"):
        pipe.transformer(**inputs)


@pytest.mark.parametrize("plan", [LATE, SPARSE, "auto"], ids=["late", "always", "auto"])
def test_passes_after_the_last_step_run_stock(pipe, plan):
    inputs = latents((3, 8, 7))
    stock = pipe.transformer(**inputs)[0]
    with ajour.sparse(pipe, plan):
        run(pipe, steps=3)
        assert ajour.summary(pipe).fallbacks == ()
        assert torch.equal(pipe.transformer(**inputs)[0], stock)
        assert "has done all its steps" in ajour.summary(pipe).fallbacks[0]


def loop(transformer, scheduler, *, advance, passes=1):
    """A denoising loop of a user's own."""
    inputs = latents((3, 8, 7))
    scheduler.set_timesteps(STEPS)
    sample = inputs["hidden_states"]
    sigmas = scheduler.sigmas
    for index, t in enumerate(scheduler.timesteps):
        for _ in range(passes):
            velocity = transformer(**inputs | {"hidden_states": sample, "timestep": t[None]})[0]
        if advance:
            sample = scheduler.step(velocity, t, sample, return_dict=False)[0]
        else:
            sample = sample + (sigmas[index + 1] - sigmas[index]) * velocity
    return sample


@pytest.mark.parametrize("passes", [1, 2])
def test_a_loop_of_ones_own_runs_sparse(passes):
    transformer, scheduler = make_transformer(), other_scheduler()
    with ajour.sparse(transformer, LATE, scheduler=scheduler, strict=True):
        loop(transformer, scheduler, advance=True, passes=passes)
        steps = session_of(transformer).steps
    assert steps[0] == "dense"
    assert steps[-1] == "sparse"


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("plan", [LATE, SPARSE], ids=["late", "always"])
def test_a_loop_that_never_calls_step_runs_stock_and_says_so(plan, passes):
    transformer, scheduler = make_transformer(), other_scheduler()
    ran = []
    with ajour.sparse(transformer, plan, scheduler=scheduler):
        runtime = session_of(transformer).runtimes[0]
        hook = transformer.register_forward_hook(lambda *_: ran.append(runtime.assignment))
        loop(transformer, scheduler, advance=False, passes=passes)
        hook.remove()
        assert "without a call of FlowMatchEuler" in ajour.summary(transformer).fallbacks[0]
    assert set(ran[passes:]) == {"dense"}  # all but the first step's, which is known
    with (
        ajour.sparse(transformer, plan, scheduler=scheduler, strict=True),
        pytest.raises(RuntimeError, match="strict.*without a call"),
    ):
        loop(transformer, scheduler, advance=False, passes=passes)


def enable_at(step, plan, **options):
    def callback(pipe, index, _time, kwargs):
        if index == step:
            ajour.enable(pipe, plan, **options)
        return kwargs

    return callback


def test_enabled_in_a_step_callback_the_run_goes_on_at_its_step(make_pipe):
    """The schedulers of most pipelines say where they are."""
    _, steps = alone(make_pipe)
    pipe = make_pipe()
    run(pipe, steps=STEPS, callback_on_step_end=enable_at(1, LATE, strict=True))
    assert session_of(pipe).steps == steps[2:]
    assert "sparse" in steps[2:]


@pytest.mark.filterwarnings("ignore:__array__")
def test_enabled_in_the_middle_where_the_scheduler_does_not_say_the_step():
    transformer, scheduler = make_transformer(), DDIMScheduler()
    inputs = latents((3, 8, 7))
    stock = transformer(**inputs)[0]
    scheduler.set_timesteps(4)
    scheduler.step(stock, scheduler.timesteps[0], stock)
    with ajour.sparse(transformer, SPARSE, scheduler=scheduler):
        assert torch.equal(transformer(**inputs)[0], stock)
        assert "no set_timesteps" in ajour.summary(transformer).fallbacks[0]
        scheduler.set_timesteps(4)
        assert not torch.equal(transformer(**inputs)[0], stock)


@pytest.mark.parametrize("duplicate", [by_copy, by_pickle, by_torch])
@pytest.mark.parametrize("when", ["between runs", "in a pass"])
def test_a_copy_runs_stock(pipe, duplicate, when):
    sizes = [latents((3, 8, 7)), latents((2, 4, 4))]
    stock = [pipe.transformer(**inputs)[0] for inputs in sizes]
    copies = []
    with ajour.sparse(pipe, SPARSE):
        if when == "in a pass":
            runtime = session_of(pipe).runtimes[0]
            with runtime.listen(lambda *_: copies or copies.append(duplicate(pipe.transformer))):
                run(pipe, steps=1)
        else:
            run(pipe, steps=1)
            copies.append(duplicate(pipe.transformer))
        (twin,) = copies
        assert not any(isinstance(p, SparseProcessor) for p in twin.attn_processors.values())
        for inputs, expected in zip(sizes, stock, strict=True):
            assert torch.equal(twin(**inputs)[0], expected)
        with pytest.raises(RuntimeError, match="not enabled"):
            ajour.summary(twin)
        assert not torch.equal(run(pipe, steps=1), run_stock(twin, pipe))


def run_stock(transformer, pipe):
    """A run of the pipeline with another transformer in its place."""
    return run(WanPipeline(**pipe.components | {"transformer": transformer}), steps=1)


def test_a_copy_can_be_enabled_by_itself(pipe):
    ajour.enable(pipe, SPARSE)
    expected = run(pipe)
    twin = WanPipeline(**pipe.components | {"transformer": copy.deepcopy(pipe.transformer)})
    with ajour.sparse(twin, SPARSE):
        assert torch.equal(run(twin), expected)
    assert torch.equal(run(pipe), expected)


def test_forward_called_directly_runs_stock_and_says_so(pipe):
    inputs = latents((3, 8, 7))
    stock = pipe.transformer(**inputs)[0]
    with ajour.sparse(pipe, SPARSE):
        run(pipe, steps=1)
        assert torch.equal(pipe.transformer.forward(**inputs)[0], stock)
        assert "forward() was called directly" in ajour.summary(pipe).fallbacks[0]
    with (
        ajour.sparse(pipe, SPARSE, strict=True),
        pytest.raises(RuntimeError, match="forward.. was called directly"),
    ):
        pipe.transformer.forward(**inputs)


def test_a_pass_that_fails_leaves_nothing_behind(pipe):
    inputs = latents((3, 8, 7))
    stock = pipe.transformer(**inputs)[0]
    with ajour.sparse(pipe, SPARSE):
        hook = pipe.transformer.blocks[1].register_forward_pre_hook(fail)
        with pytest.raises(InterruptedError):
            run(pipe)
        hook.remove()
        assert torch.equal(pipe.transformer.forward(**inputs)[0], stock)


def fail(*_):
    raise InterruptedError


def test_threads_on_one_transformer_take_turns(make_pipe):
    """Two pipelines over one transformer, at two sizes, at the same time."""
    sizes = [(9, 128, 112), (13, 64, 80)]
    captured = make_plan(
        [ajour.Captured([0.5, 0.5, 0.5, 1.0]), ajour.Stripe(3)], ((1.0, "sparse"),)
    )
    pipe = make_pipe()
    pipes = [pipe, twin_of(pipe)]
    for each in pipes:
        each.set_progress_bar_config(disable=True)
    outputs = {}

    def work(index):
        outputs[index] = run(pipes[index], steps=STEPS, size=sizes[index])

    for plan in (SPARSE, LATE, captured):
        with ajour.sparse(pipe, plan, strict=True):
            expected = [
                run(each, steps=STEPS, size=size) for each, size in zip(pipes, sizes, strict=True)
            ]
            threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for index in range(2):
                assert torch.equal(outputs.pop(index), expected[index])
