"""Plans chosen on the way."""

import itertools

import numpy as np
import pytest
import torch
from diffusers import FirstBlockCacheConfig

import ajour
from ajour import Captured, Full, Plan, TokenGrid
from ajour.pipelines.auto import SPEEDS, Auto
from ajour.pipelines.choosing import AutoPlanner, choose
from ajour.pipelines.session import session_of
from tests.pipelines.conftest import HEADS, SPARSE, latents, make_plan, make_transformer, run

SIZE = (33, 192, 176)  # 9x12x11 tokens, ten blocks
MAPPED = make_plan([Captured([0.5, 0.5, 0.5, 1.0]), Full()])


def test_one_line_is_all(pipe):
    dense = run(pipe, steps=5, size=SIZE)
    ajour.enable(pipe)
    sparse = run(pipe, steps=5, size=SIZE)
    phases = session_of(pipe).steps
    assert phases[0] == "dense"
    assert set(phases[2:]) == {"auto", "auto-late"}
    assert not torch.equal(sparse, dense)
    relative = (sparse - dense).norm() / dense.norm()
    assert 0 < relative < 0.5
    ajour.disable(pipe)
    assert torch.equal(run(pipe, steps=5, size=SIZE), dense)


@pytest.mark.parametrize("density", [0.25, 0.4, 0.6])
def test_the_density_is_the_one_asked_for(pipe, density):
    with ajour.sparse(pipe, density=density, reuse=False):
        run(pipe, steps=4, size=SIZE)
        phases = [use for use in session_of(pipe).steps if use != "dense"]
        found = ajour.summary(pipe).mean_density(phases)
        assert 0.9 * density <= found <= 1.001 * density


@pytest.mark.parametrize("steps", [1, 2, 4, 20, 50])
@pytest.mark.parametrize("density", [0.05, 0.2, 0.6])
def test_later_steps_get_less_and_the_mean_is_what_was_asked(steps, density):
    levels = [3 * s / (1 + 2 * s) for s in (1 - i / steps for i in range(steps))]
    auto = Auto(density)
    found, names = auto.densities(levels), auto.schedule(levels).steps(levels)
    thin = [found[name] for name in names if name != "dense"]
    assert np.mean(thin) == pytest.approx(density)
    assert density <= found["auto"] <= min(1.0, 2 * density)
    assert found["auto-late"] <= density


def test_more_density_is_closer_to_dense(pipe):
    dense = run(pipe, steps=4, size=SIZE)
    errors = []
    for density in (0.15, 0.4, 1.0):
        with ajour.sparse(pipe, density=density):
            errors.append(float((run(pipe, steps=4, size=SIZE) - dense).norm()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3 * float(dense.norm())


def test_speeds_are_densities(pipe):
    for name, speed in SPEEDS.items():
        with ajour.sparse(pipe, speed=name):
            assert session_of(pipe).runtimes[0].auto == Auto(speed.density, reuse=speed.reuse)


def test_the_choice_can_be_saved_and_gives_the_same(pipe, tmp_path, monkeypatch):
    maps = [Captured([x, x, x, 1.0], order=c) for x in (0.1, 0.3) for c in ("raster", "column")]
    monkeypatch.setattr(Auto, "candidates", lambda self, grid: [Full(), *maps])
    with ajour.sparse(pipe, density=0.4):
        with pytest.raises(RuntimeError, match="no plan has been chosen yet"):
            ajour.current_plan(pipe)
        chosen = run(pipe, steps=8, size=SIZE)
        phases = session_of(pipe).steps
        ajour.current_plan(pipe).save(tmp_path / "plan.json")
        assert "captured" in str(ajour.summary(pipe))
    with ajour.sparse(pipe, tmp_path / "plan.json"):
        assert torch.equal(run(pipe, steps=8, size=SIZE), chosen)
        assert session_of(pipe).steps == phases
    assert Plan.load(tmp_path / "plan.json").provenance["made_by"] == "auto"


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_short_runs_go_sparse_for_at_least_half(pipe, steps):
    with ajour.sparse(pipe, Auto(0.4, from_noise_level=0.01)):
        run(pipe, steps=steps, size=SIZE)
        phases = session_of(pipe).steps
        assert phases[0] == "dense"
        assert len([use for use in phases if use != "dense"]) == steps - max(1, steps // 2)


def test_refresh_chooses_anew(pipe):
    with ajour.sparse(pipe, Auto(0.4, dense_every=2)):
        run(pipe, steps=8, size=SIZE)
        phases = session_of(pipe).steps
        start = phases.index("auto")
        assert phases[start : start + 2] == ("auto", "dense")
        assert "dense" in phases[phases.index("auto-late") :]


def test_a_new_run_chooses_anew(make_pipe):
    fresh, used = make_pipe(), make_pipe()
    ajour.enable(used, density=0.4)
    ajour.enable(fresh, density=0.4)
    run(used, steps=4, size=SIZE)
    after = run(used, steps=4, size=(17, 144, 128), prompt="a blue square", guidance_scale=3.0)
    alone = run(fresh, steps=4, size=(17, 144, 128), prompt="a blue square", guidance_scale=3.0)
    assert torch.equal(after, alone)


def test_two_transformers_choose_for_themselves(make_pipe):
    pipe = make_pipe(transformer_2=make_transformer(seed=1), boundary_ratio=0.8)
    ajour.enable(pipe, Auto(0.4, from_noise_level=0.97))
    run(pipe, steps=8, size=SIZE)
    one, other = session_of(pipe).runtimes
    assert one.plan is not None
    assert other.plan is not None
    assert session_of(pipe).steps[-1] == "auto-late"
    assert ajour.current_plan(pipe) is other.plan


def test_a_layer_that_was_skipped_stays_full_and_is_said(pipe, monkeypatch):
    heard = AutoPlanner.listener
    monkeypatch.setattr(
        AutoPlanner,
        "listener",
        lambda self, layer, weight: None if layer == 1 else heard(self, layer, weight),
    )
    with ajour.sparse(pipe, density=0.4):
        run(pipe, steps=4, size=SIZE)
        plan, state = ajour.current_plan(pipe), ajour.summary(pipe)
        assert session_of(pipe).steps[2:] == ("auto-late",) * 2
    assert set(plan.layer("auto", 1)) == {Full()}
    assert any("skipped" in reason for reason in state.fallbacks)


def test_of_samples_of_different_text_lengths_the_last_one_counts():
    """Both what captured maps are made of and the choice among candidates."""
    model = {"transformer": "any", "layers": 1, "heads": HEADS, "head_dim": 16}
    grids = [TokenGrid(5, 12, 12, after=length) for length in (7, 40)]
    q, k, v = torch.randn(3, 2, 1, grids[1].seq_len, HEADS, 16)
    planners = [AutoPlanner(Auto(), model, grids[1], [1.0, 0.8, 0.4]) for _ in range(2)]
    for planner, samples in zip(planners, ((0, 1), (1,)), strict=True):
        listen = planner.listener(0, lambda _: None)
        for index in samples:
            own = slice(grids[index].seq_len)
            listen(*(x[index][:, own] for x in (q, k, v)), None, grids[index])
    both, last = planners
    assert torch.equal(both.errors[0], last.errors[0])
    assert both.ranks[0].keys() == last.ranks[0].keys()
    for ranking, packed in both.ranks[0].items():
        assert torch.equal(packed.unpack(), last.ranks[0][ranking].unpack())


@pytest.mark.parametrize("grid", [(1, 128, 128), (5, 64, 48), (9, 16, 16)])
def test_any_size(pipe, grid):
    with ajour.sparse(pipe, density=0.5):
        assert run(pipe, steps=4, size=grid).isfinite().all()
        assert {"auto", "auto-late"} & set(session_of(pipe).steps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"density": 0.0}, "density must be a number over 0 and up to 1, got 0.0"),
        ({"density": 1.5}, "density must be a number"),
        ({"density": True}, "density must be a number"),
        ({"speed": "ludicrous"}, "unknown speed 'ludicrous'; speeds are careful, balanced, fast"),
        ({"speed": "fast", "density": 0.3}, "a density or a speed, not both"),
        ({"plan": SPARSE, "density": 0.3}, 'is for plan="auto"'),
    ],
)
def test_bad_requests_change_nothing(pipe, arguments, message):
    stock = [block.attn1.processor for block in pipe.transformer.blocks]
    with pytest.raises(ValueError, match=message):
        ajour.enable(pipe, **arguments)
    assert [block.attn1.processor for block in pipe.transformer.blocks] == stock


def test_auto_checks_its_numbers():
    with pytest.raises(ValueError, match="from_noise_level must be a number"):
        Auto(from_noise_level=0)
    with pytest.raises(ValueError, match="dense_every must be 0 or"):
        Auto(dense_every=1)
    with pytest.raises(ValueError, match="reuse must be a number from 0 to 1, got 2"):
        Auto(reuse=2)


def test_the_choice_is_close_to_the_best():
    rng = np.random.default_rng(0)
    for _ in range(20):
        errors, costs = rng.random((4, 5)), rng.random((4, 5))
        budget = float(rng.uniform(costs.min(1).mean(), 0.8))
        picks = np.array(list(itertools.product(range(5), repeat=4)))
        rows = np.arange(4)
        totals, spent = errors[rows, picks].sum(1), costs[rows, picks].mean(1)
        best = totals[spent <= budget].min()
        chosen = choose(errors, costs, budget)
        assert costs[rows, chosen].mean() <= budget + 1e-12
        assert errors[rows, chosen].sum() <= best + 0.35


def test_an_impossible_budget_takes_the_cheapest():
    errors, costs = np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 0.6], [1.0, 0.5]])
    assert choose(errors, costs, 0.1).tolist() == [1, 1]


@pytest.mark.parametrize("plan", ["auto", MAPPED])
def test_a_run_broken_off_in_its_measured_step_is_forgotten(pipe, plan):
    with ajour.sparse(pipe, plan, strict=True):
        runtime = session_of(pipe).runtimes[0]

        def stop(layer, *_):
            if runtime.assignment == "dense" and layer == 0:
                raise KeyboardInterrupt

        with runtime.listen(stop), pytest.raises(KeyboardInterrupt):
            run(pipe, steps=4, size=SIZE)
        run(pipe, steps=4, size=SIZE)
        assert runtime.fallbacks == []
        assert set(session_of(pipe).steps) > {"dense"}


def test_the_current_plan_is_of_the_transformer_that_ran_last(make_pipe):
    pipe = make_pipe(transformer_2=make_transformer(1), boundary_ratio=0.8)
    with ajour.sparse(pipe):
        run(pipe, steps=6, size=SIZE)
        one, other = session_of(pipe).runtimes
        assert ajour.current_plan(pipe) is other.plan
        pipe.transformer(**latents((3, 7, 9)))
        assert ajour.current_plan(pipe) is one.plan


def levels_of(steps, shift=2.0):
    even = (1 - step / steps for step in range(steps))
    return [shift * x / (1 + (shift - 1) * x) for x in even]


@pytest.mark.parametrize(("steps", "in_a_row"), [(8, 1), (20, 1), (20, 2), (50, 1), (50, 3)])
def test_steps_are_reused_from_the_bound_on_and_never_the_last(steps, in_a_row):
    levels, auto = levels_of(steps), Auto()
    names = auto.schedule(levels, in_a_row).steps(levels)
    reused = [index for index, name in enumerate(names) if name == "reuse"]
    assert reused == auto.reused(levels, in_a_row)
    assert reused[0] == auto.reuse_begins(levels) >= 3
    assert all(levels[index] <= 0.8 for index in reused)
    assert names[-1] == "auto-late"
    longest = max(len(list(group)) for name, group in itertools.groupby(names) if name == "reuse")
    assert in_a_row <= longest <= in_a_row + 1
    computed = [name for name in names if name != "reuse"]
    assert "auto" in computed
    assert "auto-late" in computed


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_few_steps_are_all_computed(steps):
    assert Auto().reuse_begins(levels_of(steps)) is None


def test_how_many_steps_are_reused_follows_from_what_was_seen():
    auto = Auto(reuse=0.01)
    assert [auto.in_a_row(missed) for missed in (1.0, 0.02, 0.01, 0.0012, 0.0011, 1e-4, 0)] == [
        0, 0, 1, 1, 2, 3, 3,
    ]  # fmt: skip


def test_automatic_plans_reuse_steps_and_are_saved_with_them(pipe, tmp_path):
    """Outputs of a random model change evenly, so that many steps are reused."""
    with ajour.sparse(pipe, Auto(0.4, reuse=1.0)):
        chosen = run(pipe, steps=8, size=SIZE, guidance_scale=2.0)
        steps = session_of(pipe).steps
        assert steps.count("reuse") >= 3
        assert steps[-1] != "reuse"
        assert "0 reused" not in ajour.summary(pipe).outline
        assert torch.equal(run(pipe, steps=8, size=SIZE, guidance_scale=2.0), chosen)
        plan = ajour.current_plan(pipe)
        plan.save(tmp_path / "plan.json")
        run(pipe, steps=8, size=SIZE, prompt="a blue square")  # nothing is carried over
        assert torch.equal(run(pipe, steps=8, size=SIZE, guidance_scale=2.0), chosen)
    assert Plan.load(tmp_path / "plan.json").schedule.reuses
    with ajour.sparse(pipe, plan):
        run(pipe, steps=8, size=SIZE, guidance_scale=2.0)
        assert session_of(pipe).steps == steps
    for options in ({"plan": Auto(0.4, reuse=1.0)}, {"plan": plan}):
        with ajour.sparse(pipe, **options, reuse=False):
            run(pipe, steps=8, size=SIZE)
            assert "reuse" not in session_of(pipe).steps


def assert_dense_steps_alone(pipe, auto, tmp_path):
    """Steps are dense as in stock or reused, also by the saved plan."""
    dense = run(pipe, steps=8, size=SIZE)
    with ajour.sparse(pipe, auto, reuse=False, strict=True):
        assert torch.equal(run(pipe, steps=8, size=SIZE), dense)
        assert set(session_of(pipe).steps) == {"dense"}
    with ajour.sparse(pipe, auto, strict=True):
        chosen = run(pipe, steps=8, size=SIZE)
        assert set(session_of(pipe).steps) == {"dense", "reuse"}
        assert session_of(pipe).steps[-1] == "dense"
        notes = ajour.summary(pipe).notes
        ajour.current_plan(pipe).save(tmp_path / "plan.json")
    with ajour.sparse(pipe, str(tmp_path / "plan.json"), strict=True):
        assert torch.equal(run(pipe, steps=8, size=SIZE), chosen)
    return notes


def test_a_small_grid_stays_dense_and_the_reason_is_said(pipe, tmp_path, monkeypatch):
    monkeypatch.setattr("ajour.pipelines.auto.LEAST_BLOCKS", 16)
    notes = assert_dense_steps_alone(pipe, Auto(0.3, reuse=1.0), tmp_path)
    assert notes == (
        "grid 9x12x11 has 10 blocks of 128 tokens: automatic plans run fewer than 16 blocks dense",
    )


def test_a_density_of_one_reuses_dense_steps(pipe, tmp_path):
    assert assert_dense_steps_alone(pipe, Auto(1.0, reuse=1.0), tmp_path) == ()


def test_nothing_is_reused_where_outputs_change_at_random(pipe):
    pipe.transformer.register_forward_hook(lambda *args: (torch.randn_like(args[-1][0]),))
    with ajour.sparse(pipe):
        run(pipe, steps=8, size=SIZE)
        assert "reuse" not in session_of(pipe).steps


def test_an_automatic_plan_leaves_reuse_to_a_cache(pipe):
    with ajour.sparse(pipe, Auto(0.4, reuse=1.0), strict=True):
        pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=1e-9))
        with pipe.transformer.cache_context("test"):
            run(pipe, steps=8, size=SIZE)
        assert "reuse" not in session_of(pipe).steps
        assert "a cache of diffusers is on" in ajour.summary(pipe).notes[0]
