"""What breaks off, is shared or is dropped leaves nothing behind that others would meet."""

import copy
import gc
import threading
import weakref

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

import ajour
from ajour import Captured, Stripe
from ajour.capture import CapturedRows
from ajour.pipelines.session import session_of
from tests.pipelines.conftest import LATE, LAYERS, SPARSE, latents, make_plan, make_transformer, run

CAPTURED = make_plan([Captured([0.5, 0.5, 0.5, 1.0]), Stripe(3)], ((1.0, "sparse"),))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, InterruptedError])
def test_a_pass_that_is_broken_off_ends(pipe, error, compiled):
    """Torch calls no hook after a KeyboardInterrupt."""
    inputs = latents((3, 8, 7))
    stock = pipe.transformer(**inputs)[0]
    twin = WanPipeline(**pipe.components | {"scheduler": copy.deepcopy(pipe.scheduler)})
    twin.set_progress_bar_config(disable=True)
    switch = []

    @torch.compiler.disable
    def hook(*_):
        if switch:
            raise error

    def break_off():
        switch.append(1)
        with pytest.raises(error):
            run(pipe)
        switch.clear()

    pipe.transformer.blocks[-1].register_forward_pre_hook(hook)
    if compiled:
        torch._dynamo.reset()
        pipe.transformer.compile(backend="eager")
    with ajour.sparse(pipe, SPARSE):
        expected = run(pipe)
        break_off()
        assert torch.equal(pipe.transformer.forward(**inputs)[0], stock)
        assert "forward() was called directly" in ajour.summary(pipe).fallbacks[0]
        break_off()
        outputs = []
        thread = threading.Thread(target=lambda: outputs.append(run(twin)), daemon=True)
        thread.start()
        thread.join(timeout=60)
        assert outputs, "another thread still waits for the pass that was broken off"
        torch.testing.assert_close(outputs[0], expected)
        torch.testing.assert_close(run(pipe), expected)


def test_forward_in_another_thread_does_not_use_the_tables_of_a_pass(pipe):
    inputs = latents((3, 8, 7))
    stock = pipe.transformer(**inputs)[0]
    outputs, started = [], []

    def work():
        outputs.append(pipe.transformer.forward(**inputs)[0])

    def elsewhere(*_):
        if not started:
            started.append(1)
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()

    with ajour.sparse(pipe, SPARSE):
        expected = run(pipe)
        hook = pipe.transformer.blocks[0].register_forward_pre_hook(elsewhere)
        assert torch.equal(run(pipe), expected)
        hook.remove()
    assert torch.equal(outputs[0], stock)


def test_a_pass_that_never_began_does_not_end_the_pass_of_another_thread(pipe):
    """Torch calls the hook after a pass also if another hook failed before ours began it."""
    inputs = latents((3, 8, 7))

    def refuse(*_):
        if threading.current_thread() is not threading.main_thread():
            raise InterruptedError

    def work():
        with pytest.raises(InterruptedError):
            pipe.transformer(**inputs)
        tried.append(1)

    def meanwhile(*_):
        if not tried:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()

    tried = []
    pipe.transformer.register_forward_pre_hook(refuse)
    with ajour.sparse(pipe, SPARSE, strict=True):
        expected = run(pipe)
        pipe.transformer.blocks[0].register_forward_pre_hook(meanwhile)
        assert torch.equal(run(pipe), expected)
    assert tried


class Blind:
    """A scheduler that has no noise levels."""


def test_a_refused_scheduler_before_the_first_pass(pipe):
    inputs = latents((3, 8, 7))
    stock = pipe.transformer(**inputs)[0]
    with ajour.sparse(pipe, LATE):
        pipe.scheduler = Blind()
        assert ajour.summary(pipe).fallbacks == ()
        assert session_of(pipe).steps == ()
        assert torch.equal(pipe.transformer(**inputs)[0], stock)
        assert "Blind has neither sigmas" in ajour.summary(pipe).fallbacks[0]


def test_a_session_that_was_released_leaves_the_scheduler_alone(pipe):
    with ajour.sparse(pipe, LATE):
        session = session_of(pipe)
    assert session.steps == ()
    assert session.step is None
    assert not {"step", "set_timesteps"} & set(vars(pipe.scheduler))


def test_a_shallow_copy_of_a_pipeline_can_be_enabled_again(pipe):
    ajour.enable(pipe, LATE)
    twin = copy.copy(pipe)
    ajour.disable(pipe)
    with pytest.raises(RuntimeError, match="not enabled"):
        ajour.disable(twin)
    with ajour.sparse(twin, SPARSE):
        assert set(session_of(twin).runtimes) == set(session_of(twin.transformer).runtimes)
    with pytest.raises(RuntimeError, match="not enabled"):
        ajour.summary(twin)


def maps_alive():
    gc.collect()
    return sum(type(thing) is CapturedRows for thing in gc.get_objects())


@pytest.mark.parametrize("keep", [False, True])
def test_maps_of_earlier_runs_do_not_pile_up(pipe, keep):
    """A new scheduler for each run is common, and some programs keep the old ones."""
    kept, counts = [], []
    ajour.enable(pipe, CAPTURED)
    before = maps_alive()
    for shift in (2.0, 3.0, 4.0):
        pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
        kept += [pipe.scheduler] * keep
        run(pipe)
        counts.append(maps_alive() - before)
    assert counts == [LAYERS] * 3


@pytest.mark.parametrize("disable", [False, True])
def test_a_dropped_pipeline_is_freed_with_its_transformer_and_maps(make_pipe, disable):
    before = maps_alive()
    pipe = make_pipe()
    pipe.transformer.blocks[-1].register_forward_pre_hook(fail_late := FailLate())
    ajour.enable(pipe, CAPTURED)
    run(pipe)
    fail_late.fails = True
    with pytest.raises(KeyboardInterrupt):
        run(pipe)
    gone = weakref.ref(pipe), weakref.ref(pipe.transformer)
    scheduler = pipe.scheduler  # another pipeline may have it
    if disable:
        ajour.disable(pipe)
    del pipe
    assert maps_alive() == before
    assert [reference() for reference in gone] == [None, None]
    scheduler.set_timesteps(3)


class FailLate:
    fails = False

    def __call__(self, *_):
        if self.fails:
            raise KeyboardInterrupt


def test_an_automatic_plan_cannot_be_run_by_name(pipe):
    """Its captured maps are of one run."""
    ajour.enable(pipe, "auto")
    run(pipe, steps=4)
    runtime = session_of(pipe).runtimes[0]
    with pytest.raises(ValueError, match="automatic plan"), runtime.run_as("auto"):
        pass
    with runtime.run_as("dense"):
        pipe.transformer(**latents((3, 8, 7)))
    assert runtime.assignment == "dense"


def test_the_automatic_plan_is_that_of_the_last_pass(pipe):
    """Another run chooses its plan in the middle, then the first run goes on with its own."""
    twin = WanPipeline(**pipe.components | {"scheduler": FlowMatchEulerDiscreteScheduler()})
    twin.set_progress_bar_config(disable=True)

    def between(_pipe, step, _time, kwargs):
        if step == 4:
            run(twin, steps=4, size=(13, 64, 80))
            assert ajour.current_plan(pipe).provenance["grid"] == "4x4x5"
        return kwargs

    with ajour.sparse(pipe):
        run(pipe, steps=6, callback_on_step_end=between)
        assert ajour.summary(pipe).grid == "3x8x7"
        assert ajour.current_plan(pipe).provenance["grid"] == "3x8x7"


def test_summary_is_of_the_transformer_that_ran_last(make_pipe):
    pipe = make_pipe(transformer_2=make_transformer(1), boundary_ratio=0.8)
    with ajour.sparse(pipe, SPARSE):
        pipe.scheduler.set_timesteps(3)
        pipe.transformer_2(**latents((3, 8, 7)))
        assert ajour.summary(pipe).grid == "3x8x7"


def test_a_pipeline_that_holds_the_transformer_compiled_is_followed(make_pipe):
    """`torch.compile(transformer)` wraps it in a module of its own."""
    pipe = make_pipe()
    twin = make_pipe(
        transformer=torch.compile(pipe.transformer, backend="eager"),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
    )
    with ajour.sparse(pipe, LATE):
        run(twin, steps=6)
        assert "sparse" in session_of(pipe).steps
        assert ajour.summary(pipe).fallbacks == ()


def test_blocks_of_timers_nest(pipe):
    outer, inner = [], []
    with ajour.sparse(pipe, SPARSE):
        runtime = session_of(pipe).runtimes[0]
        with runtime.time([lambda: outer.append(1)] * LAYERS):
            with runtime.time([lambda: inner.append(1)] * LAYERS):
                run(pipe, steps=1)
            assert (len(outer), len(inner)) == (0, 2 * LAYERS)
            run(pipe, steps=1)
        run(pipe, steps=1)
    assert (len(outer), len(inner)) == (2 * LAYERS, 2 * LAYERS)
