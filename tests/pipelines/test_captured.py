"""Captured patterns in a pipeline: measured in a dense step, kept, measured anew."""

from dataclasses import replace

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import ajour
from ajour import Captured, Full, Stripe, TokenGrid
from ajour.capture import block_mass, capture, expand
from ajour.pipelines.auto import Auto
from ajour.pipelines.measuring import CapturedMaps, measure
from ajour.pipelines.runtime import GRIDS
from ajour.pipelines.session import session_of
from ajour.pipelines.tables import prepare
from tests.pipelines.conftest import HEADS, LATE, LAYERS, latents, make_plan, make_transformer, run

SIZE = (33, 144, 128)  # 9x9x8 tokens, six blocks
HALF = Captured([0.5, 0.5, 0.5, 1.0])
LATER = ((1.0, "dense"), (0.8, "sparse"))


def captured(schedule=LATER, pattern=HALF):
    return make_plan([pattern, Stripe(3)], schedule)


def maps(pipe):
    """The level maps of the first head that the first transformer holds, one per layer."""
    runtime = session_of(pipe).runtimes[0]
    return [runtime.captured("sparse", layer)[0] for layer in range(LAYERS)]


def test_it_is_measured_in_the_last_dense_step(pipe):
    plan = captured()
    run(pipe, steps=6, size=SIZE)
    with ajour.sparse(pipe, plan):
        heard = {}
        session = session_of(pipe)

        def listen(layer, q, k, v, out, grid):
            if session.runtimes[0].assignment == "dense":
                heard[layer] = session.step, capture(q[:, :, :1], k[:, :, :1], grid, HALF)[0]

        with session.runtimes[0].listen(listen):
            run(pipe, steps=6, size=SIZE)
        phases = session.steps
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
        (levels,) = session_of(pipe).runtimes[0].captured("sparse", 0).values()
    monkeypatch.setattr("ajour.pipelines.tables.EXPANDED_BYTES", layers * 4 * levels.numel())
    expanded = []
    monkeypatch.setattr(
        "ajour.processors.processor.expand",
        lambda tables, rows: (expanded.append(len(rows)), expand(tables, rows))[1],
    )
    with ajour.sparse(pipe, captured()):
        assert torch.equal(run(pipe, size=SIZE), kept)
        sparse_steps = session_of(pipe).steps.count("sparse")
        assert len(expanded) == (LAYERS - layers) * sparse_steps


def test_without_a_dense_phase_the_first_step_runs_dense(pipe):
    with ajour.sparse(pipe, captured(((1.0, "sparse"),))):
        run(pipe, steps=4, size=SIZE)
        assert session_of(pipe).steps == ("dense", "sparse", "sparse", "sparse")


def test_dense_every_n_steps_measures_again(pipe):
    plan = captured(((1.0, "dense"), (0.9, "sparse", 3)))
    with ajour.sparse(pipe, plan):
        measured = set()
        session = session_of(pipe)

        def listen(*_):
            if session.runtimes[0].assignment == "dense":
                measured.add(session.step)

        with session.runtimes[0].listen(listen):
            run(pipe, steps=9, size=SIZE)
        steps = session.steps
        start = steps.index("sparse")
        assert steps[start:][:6] == ("sparse", "sparse", "dense") * 2
        assert measured == {i for i in range(8) if steps[i : i + 2] == ("dense", "sparse")}


def test_dense_every_without_captured_patterns_is_a_stock_step(pipe):
    with ajour.sparse(pipe, make_plan([Stripe(3)] * 2, ((1.0, "sparse", 2),))):
        run(pipe, steps=4, size=SIZE)
        assert session_of(pipe).steps == ("sparse", "dense", "sparse", "dense")
        assert session_of(pipe).runtimes[0].captured("sparse", 0) == {}


def test_guidance_measures_the_first_pass_only(pipe):
    with ajour.sparse(pipe, captured()):
        heard = []
        session = session_of(pipe)
        with session.runtimes[0].listen(lambda *_: heard.append(session.runtimes[0].assignment)):
            run(pipe, size=SIZE, guidance_scale=3.0)
        assert session.latest_run.steps_done == 3
        assert heard.count("dense") == LAYERS
        assert heard.count("sparse") == 2 * LAYERS * session.steps.count("sparse")


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


def test_what_is_prepared_is_kept_for_a_few_grids_only(pipe, monkeypatch):
    prepared = []
    monkeypatch.setattr(
        "ajour.pipelines.runtime.prepare",
        lambda tables, rows: (prepared.append(1), prepare(tables, rows))[1],
    )
    ajour.enable(pipe, make_plan([Stripe(2)] * HEADS, ((1.0, "sparse"),)))
    pipe.scheduler.set_timesteps(4)
    for frames in range(2, 6 + GRIDS):
        pipe.transformer(**latents((frames, 4, 4)))
    assert len(prepared) == 4 + GRIDS
    pipe.transformer(**latents((3, 4, 4)))
    assert len(prepared) == 5 + GRIDS
    pipe.transformer(**latents((5 + GRIDS, 4, 4)))
    assert len(prepared) == 5 + GRIDS


def test_a_grid_that_changes_within_a_run_is_measured_again(pipe):
    ajour.enable(pipe, captured(((1.0, "sparse"),)))
    transformer, scheduler = pipe.transformer, pipe.scheduler
    scheduler.set_timesteps(6)
    ran = []
    for grid in ((9, 9, 8), (9, 9, 8), (7, 9, 8), (7, 9, 8)):
        inputs = latents(grid)
        transformer(**inputs)
        ran.append(session_of(pipe).runtimes[0].assignment)
        sample = inputs["hidden_states"]
        scheduler.step(sample, scheduler.timesteps[len(ran) - 1], sample)
        if len(ran) == 2:
            scheduler.model_outputs = [None] * scheduler.config.solver_order
            scheduler.last_sample = None
            scheduler.lower_order_nums = 0
    assert ran == ["dense", "sparse", "dense", "sparse"]


def test_a_layer_that_was_skipped_runs_dense_and_is_said(pipe, monkeypatch):
    ajour.enable(pipe, captured())
    skipped = CapturedMaps.listener
    monkeypatch.setattr(
        CapturedMaps,
        "listener",
        lambda self, layer, weight: None if layer == 1 else skipped(self, layer, weight),
    )
    run(pipe, size=SIZE, steps=4)
    assert any("skipped" in reason for reason in ajour.summary(pipe).fallbacks)


def test_each_of_two_transformers_measures_its_own(make_pipe):
    pipe = make_pipe(transformer_2=make_transformer(seed=1), boundary_ratio=0.8)
    ajour.enable(pipe, captured(((1.0, "dense"), (0.97, "sparse"))))
    run(pipe, steps=8, size=SIZE)
    one, other = (runtime.captured("sparse", 0)[0] for runtime in session_of(pipe).runtimes)
    assert not torch.equal(one, other)
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
        heard = []
        session = session_of(pipe)
        with session.runtimes[0].listen(lambda *_: heard.append(session.runtimes[0].assignment)):
            run(pipe, size=SIZE)
        assert set(heard) == {"sparse"}


def test_what_several_patterns_need_of_a_head_is_measured_once(monkeypatch):
    grid, heads = TokenGrid(9, 9, 8), 4
    torch.manual_seed(0)
    q, k = (torch.randn(1, grid.seq_len, heads, 16) for _ in range(2))
    gated = Captured([0.3, 0.6, 0.8, 1.0], share_of="attention", min_similarity=[0.2] * 3)
    group = [(HALF, (1, 3)), (gated, (3,)), (replace(HALF, scope="layer"), (0, 1, 3))]
    calls = []
    monkeypatch.setattr(
        "ajour.capture.block_mass",
        lambda q, *args, **options: calls.append(q.shape[2]) or block_mass(q, *args, **options),
    )
    found = list(measure(q, k, grid, group))
    assert calls == [3]
    assert [want for want, _ in found] == group
    for (pattern, some), levels in found:
        assert torch.equal(levels, capture(q[:, :, list(some)], k[:, :, list(some)], grid, pattern))
