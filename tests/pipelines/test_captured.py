"""Captured patterns in a pipeline: measured in a dense step, kept, measured anew."""

from dataclasses import replace

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import ajour
from ajour import Captured, Full, Stripe, TokenGrid
from ajour.capture import block_mass, capture
from ajour.pipelines.auto import Auto
from ajour.pipelines.measuring import measure
from ajour.pipelines.runtime import PREPARED
from ajour.pipelines.session import session_of
from tests.pipelines.conftest import HEADS, LATE, latents, make_plan, make_transformer, run

SIZE = (33, 144, 128)  # 9x9x8 tokens, six blocks
HALF = Captured([0.5, 0.5, 0.5, 1.0])
LATER = ((1.0, "dense"), (0.8, "sparse"))


def captured(schedule=LATER, pattern=HALF):
    return make_plan([pattern, Stripe(3)], schedule)


def maps(pipe):
    """The level maps that the first transformer holds, one per layer."""
    runtime = session_of(pipe).runtimes[0]
    return [next(iter(rows.values())).levels.unpack() for rows in runtime._maps]


def test_it_is_measured_in_the_last_dense_step(pipe):
    plan = captured()
    run(pipe, steps=6, size=SIZE)
    with ajour.sparse(pipe, plan):
        heard = {}
        runtime = session_of(pipe).runtimes[0]
        original = runtime._listen

        def listen(grids, device):
            original(grids, device)
            for index, context in enumerate(runtime._contexts):
                found = context.listener

                def both(q, k, v, out, grid, index=index, found=found):
                    heard[index] = (
                        runtime.tracker.index,
                        capture(q[:, :, :1], k[:, :, :1], grid, HALF),
                    )
                    found(q, k, v, out, grid)

                context.listener = both

        runtime._listen = listen
        run(pipe, steps=6, size=SIZE)
        phases = session_of(pipe).steps
        first = phases.index("sparse")
        assert first >= 2
        assert phases == ("dense",) * first + ("sparse",) * (6 - first)
        for index, kept in enumerate(maps(pipe)):
            step, expected = heard[index]
            assert step == first - 1
            assert torch.equal(kept, expected)


def test_everything_captured_exactly_equals_stock(pipe):
    dense = run(pipe, size=SIZE)
    with ajour.sparse(pipe, captured(pattern=Captured([1.0] * 4))) as enabled:
        with_stripes = run(enabled, size=SIZE)
    with ajour.sparse(pipe, make_plan([Full(), Stripe(3)], LATER)) as enabled:
        torch.testing.assert_close(with_stripes, run(enabled, size=SIZE))
    assert not torch.allclose(with_stripes, dense, atol=1e-4)


@pytest.mark.parametrize("layers", [0, 1])
def test_maps_too_big_to_expand_give_the_same(layers, pipe, monkeypatch):
    with ajour.sparse(pipe, captured()):
        kept = run(pipe, size=SIZE)
        (rows,) = session_of(pipe).runtimes[0]._rows("sparse", 0)
    monkeypatch.setattr("ajour.pipelines.runtime.EXPANDED_BYTES", layers * rows.expanded_nbytes)
    with ajour.sparse(pipe, captured()):
        assert torch.equal(run(pipe, size=SIZE), kept)
        contexts = session_of(pipe).runtimes[0]._contexts
        assert [not context.rows for context in contexts] == [i < layers for i in range(2)]


def test_without_a_dense_phase_the_first_step_runs_dense(pipe):
    with ajour.sparse(pipe, captured(((1.0, "sparse"),))):
        run(pipe, steps=4, size=SIZE)
        assert session_of(pipe).steps == ("dense", "sparse", "sparse", "sparse")


def test_refresh_steps_run_dense_and_measure_anew(pipe):
    plan = captured(((1.0, "dense"), (0.9, "sparse", 3)))
    with ajour.sparse(pipe, plan):
        measured = []

        def note(pipe, _step, _time, kwargs):
            found = session_of(pipe).runtimes[0]._measured
            measured.append(None if found is None else found[1])
            return kwargs

        run(pipe, steps=9, size=SIZE, callback_on_step_end=note)
        phases = session_of(pipe).steps
        start = phases.index("sparse")
        assert phases[start:][:6] == ("sparse", "sparse", "dense") * 2
        last_dense = [max(j for j in range(i + 1) if phases[j] == "dense") for i in range(9)]
        assert measured[start:] == last_dense[start:]


def test_refresh_without_captured_patterns_is_a_stock_step(pipe):
    with ajour.sparse(pipe, make_plan([Stripe(3)] * 2, ((1.0, "sparse", 2),))):
        run(pipe, steps=4, size=SIZE)
        assert session_of(pipe).steps == ("sparse", "dense", "sparse", "dense")
        assert session_of(pipe).runtimes[0]._maps == []


def test_guidance_measures_the_first_pass_only(pipe):
    with ajour.sparse(pipe, captured()):
        run(pipe, size=SIZE, guidance_scale=3.0)
        assert session_of(pipe).runtimes[0].tracker.steps_done == 3
        with_guidance = maps(pipe)
        run(pipe, size=SIZE, guidance_scale=1.0, steps=3)
        assert len(with_guidance) == len(maps(pipe)) == 2


def other_prompt(pipe):
    run(pipe, size=SIZE, prompt="a blue square", seed=3)


def other_grid(pipe):
    run(pipe, size=(13, 144, 160))


def other_scheduler(pipe):
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=2.0)
    run(pipe, size=SIZE)


@pytest.mark.parametrize("change", [other_prompt, other_grid, other_scheduler])
def test_another_run_never_sees_old_maps(make_pipe, change):
    """Whatever ran before, the run gives what it gives on its own."""
    fresh, used = make_pipe(), make_pipe()
    ajour.enable(fresh, captured())
    ajour.enable(used, captured())
    run(used, size=SIZE, steps=4)
    change(used)
    change(fresh)
    for one, other in zip(maps(used), maps(fresh), strict=True):
        assert torch.equal(one, other)
    assert session_of(used).steps == session_of(fresh).steps
    assert "sparse" in session_of(used).steps


@pytest.mark.parametrize("dense_every", [0, 2])
@pytest.mark.parametrize("plan", ["auto", "captured"])
def test_another_run_of_the_same_size_gives_what_it_gives_alone(make_pipe, plan, dense_every):
    phases = ((1.0, "dense"), (0.8, "sparse", dense_every))
    used, fresh = make_pipe(), make_pipe()
    for pipe in (used, fresh):
        ajour.enable(
            pipe, captured(phases) if plan == "captured" else Auto(dense_every=dense_every)
        )
    run(used, size=SIZE, steps=6)
    found, alone = (
        run(pipe, size=SIZE, steps=6, prompt="a blue square", seed=3) for pipe in (used, fresh)
    )
    assert torch.equal(found, alone)


def test_what_is_prepared_is_kept_for_a_few_grids_only(pipe):
    ajour.enable(pipe, make_plan([Stripe(2)] * HEADS, ((1.0, "sparse"),)))
    pipe.scheduler.set_timesteps(4)
    for frames in range(2, 6 + PREPARED):
        pipe.transformer(**latents((frames, 4, 4)))
    assert len(session_of(pipe).runtimes[0]._prepared) == PREPARED


def test_a_grid_that_changes_within_a_run_is_measured_again(pipe):
    ajour.enable(pipe, captured(((1.0, "sparse"),)))
    transformer, scheduler = pipe.transformer, pipe.scheduler
    scheduler.set_timesteps(6)
    ran = []
    for grid in ((9, 9, 8), (9, 9, 8), (7, 9, 8), (7, 9, 8)):
        inputs = latents(grid)
        transformer(**inputs)
        ran.append(session_of(pipe).runtimes[0].phase)
        sample = inputs["hidden_states"]
        scheduler.step(sample, scheduler.timesteps[len(ran) - 1], sample)
        if len(ran) == 2:
            scheduler.model_outputs = [None] * scheduler.config.solver_order
            scheduler.last_sample = None
            scheduler.lower_order_nums = 0
    assert ran == ["dense", "sparse", "dense", "sparse"]


def test_a_layer_that_was_skipped_runs_dense_and_is_said(pipe):
    ajour.enable(pipe, captured())
    runtime = session_of(pipe).runtimes[0]
    original = runtime._settle

    def lose_a_layer():
        original()
        if runtime._maps:
            runtime._maps[1].clear()

    runtime._settle = lose_a_layer
    run(pipe, size=SIZE, steps=4)
    assert any("skipped" in reason for reason in ajour.summary(pipe).fallbacks)


def test_each_of_two_transformers_measures_its_own(make_pipe):
    pipe = make_pipe(transformer_2=make_transformer(seed=1), boundary_ratio=0.8)
    ajour.enable(pipe, captured(((1.0, "dense"), (0.97, "sparse"))))
    run(pipe, steps=8, size=SIZE)
    one, other = (runtime._maps for runtime in session_of(pipe).runtimes)
    assert one
    assert other
    phases = session_of(pipe).steps
    assert phases.count("dense") >= 2
    assert phases[-1] == "sparse"


def test_summary_knows_the_density_once_measured(pipe):
    ajour.enable(pipe, captured())
    assert ajour.summary(pipe).density("sparse") is None
    run(pipe, size=SIZE)
    density = ajour.summary(pipe).density("sparse")
    static = ajour.lower([Stripe(3)], ajour.TokenGrid(9, 9, 8)).density()
    assert density == pytest.approx((static + (3 + 1) / 6) / 2)


def test_a_plan_without_captured_patterns_keeps_its_dense_steps_stock(pipe):
    with ajour.sparse(pipe, LATE):
        run(pipe, size=SIZE)
        assert session_of(pipe).runtimes[0]._measured is None


def test_what_several_patterns_need_of_a_head_is_measured_once(monkeypatch):
    grid, heads = TokenGrid(9, 9, 8), 4
    torch.manual_seed(0)
    q, k = (torch.randn(1, grid.seq_len, heads, 16) for _ in range(2))
    gated = Captured([0.3, 0.6, 0.8, 1.0], share_of="attention", min_similarity=[0.2] * 3)
    group = [(HALF, (1, 3)), (gated, (3,)), (replace(HALF, scope="layer"), (0, 1, 3))]
    calls = []
    monkeypatch.setattr(
        "ajour.capture.block_mass",
        lambda q, *args: (calls.append(q.shape[2]), block_mass(q, *args))[1],
    )
    found = list(measure(q, k, grid, group))
    assert calls == [3]
    assert [want for want, _ in found] == group
    for (pattern, some), levels in found:
        assert torch.equal(levels, capture(q[:, :, list(some)], k[:, :, list(some)], grid, pattern))
