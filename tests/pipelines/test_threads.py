"""What may be called from which thread: enable and disable beside each other and beside passes."""

import gc
import importlib
import sys
import threading
from contextlib import contextmanager

import pytest
import torch

import ajour
from ajour.pipelines import switching
from ajour.pipelines.enable import is_enabled
from ajour.pipelines.session import Session, session_of
from tests.pipelines.conftest import SPARSE, latents, make_transformer, run

GRID = (3, 8, 7)


@contextmanager
def suppressed(message):
    """Only an error that begins like this may occur."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(message):
            raise


def in_threads(*calls):
    """The exceptions of calls that run at the same time; None for each that had none."""
    start, errors = threading.Barrier(len(calls)), [None] * len(calls)

    def work(index, call):
        start.wait()
        try:
            call()
        except BaseException as error:
            errors[index] = error

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()
    return errors


@pytest.fixture
def slow_to_enable(monkeypatch):
    """Another thread can run between the check of `enable` and what it leaves on the pipeline."""

    class SlowSession(Session):
        def __init__(self, *given):
            threading.Event().wait(0.2)
            super().__init__(*given)

    module = importlib.import_module("ajour.pipelines.enable")
    monkeypatch.setattr(module, "Session", SlowSession)


def hooks(transformer):
    return len(transformer._forward_pre_hooks) + len(transformer._forward_hooks)


@pytest.mark.parametrize("by_part", [False, True], ids=["pipe", "pipe and transformer"])
def test_of_two_enables_at_once_the_second_is_refused(pipe, slow_to_enable, by_part):
    other = pipe.transformer if by_part else pipe
    errors = in_threads(
        lambda: ajour.enable(pipe, SPARSE),
        lambda: ajour.enable(other, SPARSE, scheduler=pipe.scheduler),
    )
    kinds = sorted(type(error).__name__ for error in errors)
    assert kinds == ["NoneType", "RuntimeError"]
    assert "already enabled" in str(next(error for error in errors if error is not None))
    assert hooks(pipe.transformer) == 2
    ajour.disable(pipe)
    assert hooks(pipe.transformer) == 0


def test_two_pipelines_are_enabled_at_the_same_time(make_pipe, slow_to_enable):
    pipes = make_pipe(), make_pipe()
    assert in_threads(*(lambda p=p: ajour.enable(p, SPARSE) for p in pipes)) == [None, None]
    for pipe in pipes:
        ajour.disable(pipe)


def test_of_two_disables_at_once_the_second_is_refused(pipe, monkeypatch):
    ajour.enable(pipe, SPARSE)
    release = Session.release

    def slowly(self):
        threading.Event().wait(0.2)
        release(self)

    monkeypatch.setattr(Session, "release", slowly)
    errors = in_threads(lambda: ajour.disable(pipe), lambda: ajour.disable(pipe))
    assert sorted(type(error).__name__ for error in errors) == ["NoneType", "RuntimeError"]
    assert "not enabled" in str(next(error for error in errors if error is not None))
    assert hooks(pipe.transformer) == 0


class Pause:
    """Stops a block of a transformer in the middle of a pass until it is told to go on."""

    def __init__(self, block):
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.handle = block.register_forward_pre_hook(self)

    def __call__(self, *_):
        self.reached.set()
        assert self.go_on.wait(20)


def test_disable_waits_for_the_pass_of_another_thread(pipe):
    want = run(pipe, steps=3)
    ajour.enable(pipe, SPARSE)
    sparse = run(pipe, steps=3)
    pause, seen = Pause(pipe.transformer.blocks[1]), {}

    def generate():
        seen["video"] = run(pipe, steps=3)

    def stop():
        assert pause.reached.wait(20)
        threading.Timer(0.3, pause.go_on.set).start()
        ajour.disable(pipe)
        seen["in the pass"] = not pause.go_on.is_set()

    assert in_threads(generate, stop) == [None, None]
    pause.handle.remove()
    assert seen["in the pass"] is False
    assert not is_enabled(pipe)
    assert torch.isfinite(seen["video"]).all()
    # The first step was sparse, later ones may be stock.
    assert not torch.equal(seen["video"], want)
    assert seen["video"].shape == sparse.shape
    assert torch.equal(run(pipe, steps=3), want)


def test_disable_in_a_pass_of_the_same_thread_is_refused(pipe):
    ajour.enable(pipe, SPARSE)
    block = pipe.transformer.blocks[1]
    handle = block.register_forward_pre_hook(lambda *_: ajour.disable(pipe))
    with pytest.raises(RuntimeError, match=r"disable\(\) was called in a forward pass.*between"):
        run(pipe)
    handle.remove()
    assert is_enabled(pipe)
    run(pipe)
    ajour.disable(pipe)
    assert hooks(pipe.transformer) == 0


def test_a_refused_disable_leaves_the_other_transformer_enabled_too(make_pipe):
    pipe = make_pipe(transformer_2=make_transformer(1), boundary_ratio=0.5)
    ajour.enable(pipe, SPARSE)
    handle = pipe.transformer_2.blocks[0].register_forward_pre_hook(lambda *_: ajour.disable(pipe))
    with pytest.raises(RuntimeError, match="in a forward pass"):
        pipe.transformer_2(**latents(GRID))
    handle.remove()
    assert hooks(pipe.transformer) == hooks(pipe.transformer_2) == 2
    ajour.disable(pipe)


def test_disable_after_ctrl_c_in_a_pass(pipe):
    want = run(pipe)
    ajour.enable(pipe, SPARSE)

    def interrupt(*_):
        raise KeyboardInterrupt

    handle = pipe.transformer.blocks[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(pipe)
    handle.remove()
    ajour.disable(pipe)
    assert torch.equal(run(pipe), want)


def test_a_pass_that_waited_for_disable_runs_stock(pipe):
    """Its hook was called, and then found the transformer released."""
    transformer = pipe.transformer
    want = transformer(**latents_of(0))[0]
    ajour.enable(pipe, SPARSE)
    runtime = session_of(pipe).runtimes[0]
    pre_hook = next(iter(transformer._forward_pre_hooks.values()))
    ajour.disable(pipe)
    pre_hook(transformer, (), latents_of(0))
    runtime.check_between_passes()  # raises if the turn was kept
    assert torch.equal(transformer(**latents_of(0))[0], want)


def latents_of(seed):
    torch.manual_seed(seed)
    return latents(GRID)


def test_enable_in_the_middle_of_another_threads_pass_lets_it_end(pipe):
    want = pipe.transformer(**latents_of(0))[0]
    pause, seen = Pause(pipe.transformer.blocks[1]), {}

    def generate():
        seen["out"] = pipe.transformer(**latents_of(0))[0]

    def start():
        assert pause.reached.wait(20)
        ajour.enable(pipe, SPARSE)
        pause.go_on.set()

    assert in_threads(generate, start) == [None, None]
    pause.handle.remove()
    torch.testing.assert_close(seen["out"], want)
    ajour.disable(pipe)


def test_enabling_and_disabling_in_a_race_with_runs_raises_nothing_else(pipe):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def switch():
        for _ in range(40):
            with suppressed("already enabled"):
                ajour.enable(pipe, SPARSE)
            with suppressed("not enabled"):
                ajour.disable(pipe)

    def generate():
        for _ in range(3):
            run(pipe, steps=2)

    try:
        assert in_threads(switch, switch, generate) == [None] * 3
    finally:
        sys.setswitchinterval(interval)
    if is_enabled(pipe):
        ajour.disable(pipe)
    assert hooks(pipe.transformer) == 0


def test_what_keeps_threads_apart_does_not_keep_transformers_alive(make_pipe):
    pipe = make_pipe()
    with ajour.sparse(pipe, SPARSE):
        run(pipe, steps=1)
    before = len(switching._locks)
    del pipe
    gc.collect()
    assert len(switching._locks) < before
