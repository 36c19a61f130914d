"""Reused steps: the transformer does not run, its output follows from its last outputs."""

import copy
import inspect
import io
import pickle

import pytest
import torch
from diffusers import FirstBlockCacheConfig, FlowMatchEulerDiscreteScheduler
from torch._dynamo.testing import CompileCounter

import ajour
from ajour.pipelines.reuse import PastOutputs
from ajour.pipelines.session import session_of
from tests.pipelines.conftest import FULL, SPARSE, make_plan, make_transformer, run

DENSE, REUSE, USED = "dense", "reuse", "sparse"


def even():
    return FlowMatchEulerDiscreteScheduler(shift=1.0)


def plan(schedule, patterns=None):
    return make_plan((patterns or SPARSE).patterns.values(), schedule)


LINE = 0, (1.0,)
REUSES = plan([(1.0, DENSE), (0.6, REUSE, *LINE), (0.4, USED), (0.15, REUSE, *LINE)])
"""For 5 even steps, from 1 to 0: dense, dense, reuse, sparse, reuse."""


@pytest.fixture
def passes(monkeypatch):
    """Counts forward passes that run the transformer's blocks."""

    def count(pipe):
        ran = []
        pipe.transformer.blocks[0].register_forward_pre_hook(lambda *_: ran.append(None))
        return ran

    return count


def test_the_blocks_do_not_run_in_reused_steps(make_pipe, passes):
    pipe = make_pipe(even())
    ran = passes(pipe)
    with ajour.sparse(pipe, REUSES):
        run(pipe, steps=5)
        assert session_of(pipe).steps == (DENSE, DENSE, REUSE, USED, REUSE)
        assert len(ran) == 3
        run(pipe, steps=5, guidance_scale=3.0)
        assert len(ran) == 3 + 6
        run(pipe, steps=2)  # too far apart to be reused
        assert session_of(pipe).steps == (DENSE, USED)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_reused_outputs_are_on_the_line_through_the_last_two(make_pipe, guidance):
    """Branches of guidance are kept apart."""
    pipe, outputs = make_pipe(even()), []
    pipe.transformer.register_forward_hook(lambda _m, _a, out: outputs.append(out[0].clone()))
    branches = 1 if guidance == 1 else 2
    with ajour.sparse(pipe, REUSES):
        run(pipe, steps=5, guidance_scale=guidance)
        levels = session_of(pipe).noise_levels
    for step, (first, last) in {2: (0, 1), 4: (1, 3)}.items():
        weight = (levels[step] - levels[last]) / (levels[last] - levels[first])
        for branch in range(branches):
            a, b, c = (outputs[branches * index + branch] for index in (first, last, step))
            torch.testing.assert_close(c, b + weight * (b - a))


def test_outputs_follow_from_those_that_were_recorded():
    past = PastOutputs()
    past.record(0, 0.8, (torch.ones(2), 7))
    assert torch.equal(past.predict(0, 0.6, (1.0,))[0], torch.ones(2))  # only one is known
    assert torch.equal(past.predict(0, 0.6)[0], torch.ones(2))
    past.record(0, 0.6, (torch.zeros(2), 7))
    assert torch.equal(past.predict(0, 0.5)[0], torch.zeros(2))  # no slope is known yet
    past.record(1, 0.6, (torch.full((2,), 5.0), 7))
    for slopes, expected in {
        (): 0.0, (1.0,): -0.5, (0.5,): -0.25, (2.0, -1.0): -0.5,
    }.items():  # fmt: skip
        value, other = past.predict(0, 0.5, slopes)
        torch.testing.assert_close(value, torch.full((2,), expected))
        assert other == 7
    past.record(0, 0.4, (torch.zeros(2), 7))  # rates of change: 0, then 5 before
    value, _ = past.predict(0, 0.3, (1.0, 0.5))
    torch.testing.assert_close(value, torch.full((2,), -0.1 * 0.5 * 5))
    past.record(0, 0.4, (torch.ones(2), 7))  # the same noise level again
    assert torch.isfinite(past.predict(0, 0.3, (1.0, 0.5))[0]).all()
    assert 2 not in past


def test_the_slope_is_measured_over_all_passes():
    """The least squares fit of the last change by the change before."""
    torch.manual_seed(0)
    past, levels = PastOutputs(), (0.9, 0.7, 0.6)
    outputs = torch.randn(3, 2, 50).cumsum(0)
    for number, level in enumerate(levels):
        for branch in range(2):
            past.record(branch, level, (outputs[number, branch],))
    last, before = (
        (outputs[end] - outputs[end - 1]) / (levels[end] - levels[end - 1]) for end in (2, 1)
    )
    slope = ((last * before).sum() / before.square().sum()).clamp(-1, 1)
    torch.testing.assert_close(past.slope(), slope)
    expected = outputs[2] + slope * (0.55 - 0.6) * last
    for branch in range(2):
        (out,) = past.predict(branch, 0.55)
        torch.testing.assert_close(out, expected[branch])


def test_half_precision_is_extrapolated_in_float32():
    past = PastOutputs()
    a, b = (torch.randn(64).bfloat16() for _ in range(2))
    past.record(0, 0.8, a)
    past.record(0, 0.7, b)
    exact = (b.double() + (b.double() - a.double()) * (0.65 - 0.7) / (0.7 - 0.8)).bfloat16()
    torch.testing.assert_close(past.predict(0, 0.65, (1.0,)), exact, rtol=2**-8, atol=0)


def test_the_output_of_a_pass_may_be_changed_in_place():
    past, output = PastOutputs(), torch.ones(2)
    past.record(0, 0.5, output)
    output.zero_()
    answer = past.predict(0, 0.4)
    answer.zero_()
    assert torch.equal(past.predict(0, 0.4), torch.ones(2))


def test_the_same_run_twice_is_equal(make_pipe):
    pipe = make_pipe(even())
    with ajour.sparse(pipe, REUSES):
        assert torch.equal(run(pipe, steps=5), run(pipe, steps=5))


def test_a_constant_model_loses_nothing(make_pipe):
    """Outputs that are even in the noise level are reused without error."""
    pipe = make_pipe(even())
    constant = torch.randn(1, 16, 3, 16, 14)

    def forward(*args, timestep, **kwargs):
        return (constant * (1 + timestep.flatten()[0] / 1000),)

    pipe.transformer.forward = forward
    before = run(pipe, steps=5)
    with ajour.sparse(pipe, REUSES):
        torch.testing.assert_close(run(pipe, steps=5), before)
    assert pipe.transformer.forward is forward


def test_off_is_bit_identical_and_leaves_nothing(make_pipe):
    pipe = make_pipe(even())
    before = run(pipe, steps=5)
    with ajour.sparse(pipe, REUSES):
        assert not torch.equal(run(pipe, steps=5), before)
    assert torch.equal(run(pipe, steps=5), before)
    assert "forward" not in vars(pipe.transformer)


def test_a_plan_without_reuse_leaves_the_forward_method_alone(pipe):
    with ajour.sparse(pipe, SPARSE):
        assert "forward" not in vars(pipe.transformer)


def test_another_size_in_the_run_is_computed(make_pipe):
    transformer, scheduler = make_transformer(), even()
    from tests.pipelines.conftest import latents

    small, large = latents((2, 4, 4)), latents((2, 4, 6))
    with ajour.sparse(transformer, REUSES, scheduler=scheduler):
        scheduler.set_timesteps(5)
        for step, inputs in enumerate((small, small, large, large, small)):
            t = scheduler.timesteps[step]
            out = transformer(**inputs | {"timestep": t[None]})[0]
            assert out.shape == inputs["hidden_states"].shape
            scheduler.step(out, t, inputs["hidden_states"])
        assert session_of(transformer).steps[2] == DENSE


def test_an_exception_and_an_interrupt_leave_the_transformer_usable(make_pipe):
    pipe = make_pipe(even())
    before = run(pipe, steps=5)

    class Stop(KeyboardInterrupt):
        pass

    def stop(*_):
        raise Stop

    with ajour.sparse(pipe, REUSES):
        hook = pipe.transformer.blocks[1].register_forward_hook(stop)
        with pytest.raises(Stop):
            run(pipe, steps=5)
        hook.remove()
        assert session_of(pipe).steps == ()
        run(pipe, steps=5)
        assert session_of(pipe).steps == (DENSE, DENSE, REUSE, USED, REUSE)
    assert torch.equal(run(pipe, steps=5), before)


def test_copies_run_stock(make_pipe):
    pipe = make_pipe(even())
    before = run(pipe, steps=5)
    ajour.enable(pipe, REUSES)
    run(pipe, steps=5)
    deep = copy.deepcopy(pipe.transformer)
    pickled = pickle.loads(pickle.dumps(pipe.transformer))
    file = io.BytesIO()
    torch.save(pipe.transformer, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for other in (deep, pickled, loaded):
        assert torch.equal(run(make_pipe(even(), transformer=other), steps=5), before)


def test_wrappers_put_on_later_stay(make_pipe):
    pipe = make_pipe(even())
    before = run(pipe, steps=5)
    ajour.enable(pipe, REUSES)
    inner = pipe.transformer.forward
    pipe.transformer.forward = lambda *args, **kwargs: inner(*args, **kwargs)
    wrapper = pipe.transformer.forward
    run(pipe, steps=5)
    assert session_of(pipe).steps.count(REUSE) == 2
    ajour.disable(pipe)
    assert pipe.transformer.forward is wrapper
    assert torch.equal(run(pipe, steps=5), before)


def test_the_signature_stays_for_pipelines_that_read_it(pipe):
    before = inspect.signature(pipe.transformer.forward)
    with ajour.sparse(pipe, REUSES):
        assert inspect.signature(pipe.transformer.forward) == before


def test_two_transformers_reuse_each_their_own(make_pipe):
    pipe = make_pipe(
        even(), transformer=make_transformer(), transformer_2=make_transformer(1),
        boundary_ratio=0.5,
    )  # fmt: skip
    schedule = [(1.0, USED), (0.6, REUSE), (0.4, USED), (0.15, REUSE)]
    with ajour.sparse(pipe, plan(schedule)):
        run(pipe, steps=5)
        assert session_of(pipe).steps == (USED, USED, REUSE, USED, REUSE)
    late = plan([(1.0, USED), (0.4, REUSE), (0.15, USED)])
    with ajour.sparse(pipe, late):
        run(pipe, steps=5)  # the fourth step is the first of the second transformer
        assert session_of(pipe).steps == (USED,) * 5


def test_a_cache_of_diffusers_is_not_doubled(make_pipe):
    pipe = make_pipe(even())
    with ajour.sparse(pipe, REUSES):
        pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
        with pipe.transformer.cache_context("test"):
            run(pipe, steps=5)
        assert REUSE not in session_of(pipe).steps
        (reason,) = ajour.summary(pipe).fallbacks
        assert "a cache of diffusers is on (fbc_" in reason
        pipe.transformer.disable_cache()
        run(pipe, steps=5)
        assert session_of(pipe).steps.count(REUSE) == 2
    with ajour.sparse(pipe, REUSES, strict=True):
        pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
        with pytest.raises(RuntimeError, match="a cache of diffusers is on"):
            run(pipe, steps=5)


@pytest.mark.parametrize("whole", [True, False])
def test_under_compile(make_pipe, whole):
    pipe = make_pipe(even())
    with ajour.sparse(pipe, REUSES):
        expected = run(pipe, steps=5)
    torch._dynamo.reset()
    counter = CompileCounter()
    for module in [pipe.transformer] if whole else pipe.transformer.blocks:
        module.compile(backend=counter)
    with ajour.sparse(pipe, REUSES):
        out = run(pipe, steps=5)
        assert session_of(pipe).steps == (DENSE, DENSE, REUSE, USED, REUSE)
        run(pipe, steps=5)
        graphs = counter.frame_count
        assert graphs <= 3  # dense, sparse, reused
        run(pipe, steps=5)
        assert counter.frame_count == graphs
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_full_with_reuse_equals_stock_outputs_in_computed_steps(make_pipe):
    """The first computed steps do not see that later ones are reused."""
    pipe, outputs = make_pipe(even()), []
    pipe.transformer.register_forward_hook(lambda _m, _a, out: outputs.append(out[0].clone()))
    run(pipe, steps=5)
    with ajour.sparse(pipe, plan([(1.0, DENSE), (0.4, REUSE), (0.15, USED)], FULL)):
        run(pipe, steps=5)
    assert all(torch.equal(a, b) for a, b in zip(outputs[:3], outputs[5:8], strict=True))
