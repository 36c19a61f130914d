"""Which steps to reuse: the best at every price, and together with heads in one budget."""

import itertools

import numpy as np
import pytest

from ajour.search.bands import Bands
from ajour.search.solve.joint import RunChoice, RunProblem, reused_steps
from ajour.search.solve.plan import build_plan
from ajour.search.solve.problem import DENSE_BAND, Problem
from ajour.search.solve.reuse import MOST_IN_A_ROW, Changes
from ajour.steps import run_steps
from tests.search.conftest import CANDIDATES

LEVELS = tuple(np.linspace(1.0, 0.2, 6))


def changes(seed=0, levels=LEVELS):
    """Of outputs that turn slowly, most at the start."""
    rng = np.random.default_rng(seed)
    rows = np.cumsum(rng.normal(size=(len(levels), 40)), axis=0) + 4 * rng.normal(size=40)
    rows *= np.linspace(2.0, 0.5, len(levels))[:, None]
    rows[0] = 0
    return Changes(rows @ rows.T / 1e4, levels)


def all_ways(steps):
    """Every set of reused steps without the first, at most `MOST_IN_A_ROW` in a row."""
    for flags in itertools.product([False, True], repeat=steps - 1):
        reused = [step for step, flag in enumerate(flags, 1) if flag]
        rows = [len(list(group)) for flag, group in itertools.groupby(flags) if flag]
        if max(rows, default=0) <= MOST_IN_A_ROW:
            yield reused


def gaps_of(table, reused):
    """The gaps of reused steps, each with the history that it has."""
    gaps, computed = [], [step for step in range(len(table.noise_levels)) if step not in reused]
    for last, following in itertools.pairwise([*computed, len(table.noise_levels)]):
        if following > last + 1:
            history = tuple(step for step in reversed(computed) if step <= last)[:3]
            gaps.append(table.gap(history, following - last - 1))
    return tuple(gaps)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("price", [0, 1e-4, 1e-3, 1e-2, 1.0])
def test_the_reused_steps_are_the_best_of_all(seed, price):
    table, rng = changes(seed), np.random.default_rng(seed)
    seconds, gains = rng.random(6) + 0.5, rng.random(6) * 5

    def value(gaps):
        computed = set(range(6)) - set(reused_steps(gaps))
        errors = sum(gains[gap.start] * gap.error for gap in gaps)
        return errors + price * sum(seconds[step] for step in computed)

    best = table.best(list(seconds), price, list(gains))
    least = min(value(gaps_of(table, reused)) for reused in all_ways(6))
    assert value(best) == pytest.approx(least)
    if price == 1.0:
        assert len(reused_steps(best)) == 5 - (6 - 1) // (MOST_IN_A_ROW + 1)


def test_outputs_on_a_line_are_reused_without_error():
    table = Changes(np.outer(*[np.append(0, -np.diff(LEVELS))] * 2), LEVELS)
    gap = table.gap((1, 0), 3)
    assert gap.error == pytest.approx(0, abs=1e-12)
    assert gap.slopes == pytest.approx((1.0,))
    assert table.gap((0,), 1).slopes == ()  # nothing to go on from


def run_problem(seed=0, bands=3):
    rng = np.random.default_rng(seed)
    errors = rng.random((bands, 1, 2, 3)) * np.array([0.0, 0.02, 0.1])
    costs = np.array([0.5, 0.3, 0.1])

    def build(steps):
        return Problem(errors, np.outer(steps, costs), 0.2 * steps, 1.3 * steps)

    return RunProblem(build, Bands(LEVELS, bands), changes(seed), np.full(6, 2.0))


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_heads_and_reused_steps_share_one_budget(seed, share):
    """As good as the best of all pairs of a choice of heads and tried ways of reusing."""
    problem = run_problem(seed)
    budget = share * problem.dense_seconds
    choice = problem.solve(budget)
    assert problem.seconds(choice) <= budget + 1e-9
    band = [np.array(rows).reshape(1, 2) for rows in itertools.product(range(3), repeat=2)]
    band.append(np.full((1, 2), DENSE_BAND))
    best = min(
        problem.error(RunChoice(np.stack(heads), way))
        for heads in itertools.product(band, repeat=3)
        for way in problem.ways
        if problem.seconds(RunChoice(np.stack(heads), way)) <= budget
    )
    assert problem.error(choice) <= best * 1.02 + 1e-9
    if budget > 2.5:  # heads alone cannot be faster
        alone = RunProblem(lambda _: problem.computed, problem.bands)
        assert problem.error(choice) <= alone.error(alone.solve(budget)) + 1e-9


def test_a_reused_step_costs_nothing_and_its_band_keeps_its_error():
    problem = run_problem()
    heads = np.ones((3, 1, 2), dtype=np.int64)
    way = next(way for way in problem.ways if len(reused_steps(way)) == 2)
    plain, reused = RunChoice(heads), RunChoice(heads, way)
    assert problem.seconds(reused) == pytest.approx(problem.seconds(plain) * 4 / 6)
    added = problem.error(reused) - problem.error(plain)
    assert added == pytest.approx(2 * sum(gap.error for gap in way))
    assert problem.band_errors(reused).sum() == pytest.approx(problem.error(reused))


def test_the_frontier_falls_in_time_and_rises_in_error():
    problem = run_problem()
    times = [problem.seconds(choice) for choice in problem.frontier]
    errors = [problem.error(choice) for choice in problem.frontier]
    assert times == sorted(times, reverse=True)
    assert errors == sorted(errors)
    assert len({choice.gaps for choice in problem.frontier}) > 2


def test_where_every_step_is_computed_no_point_of_the_frontier_can_be_beaten():
    problem = RunProblem(lambda _: run_problem().computed, Bands(LEVELS, 3))
    assert len(problem.frontier) > 3
    for choice in problem.frontier:
        best = problem.solve(problem.seconds(choice) + 1e-9)
        assert problem.error(choice) <= problem.error(best) * (1 + 1e-3) + 1e-9


def test_a_band_chooses_by_the_number_of_its_computed_steps():
    """What a way of reusing steps leaves to choose is what its own knapsack would choose."""
    problem = run_problem(bands=2)
    for way in problem.ways:
        alone = RunProblem(lambda _, way=way: problem.problem(way), problem.bands)
        ours = [choice for choice in problem.candidates if choice.gaps == way]
        assert {c.heads.tobytes() for c in ours} == {c.heads.tobytes() for c in alone.candidates}


def test_a_budget_below_everything_is_refused():
    with pytest.raises(ValueError, match="cannot be met"):
        run_problem().solve(1e-3)


def test_the_plan_of_a_choice_reuses_its_steps():
    model = {"transformer": "WanTransformer3DModel", "layers": 1, "heads": 2, "head_dim": 16}
    names = list(CANDIDATES)
    heads = np.array([[[DENSE_BAND] * 2], [[1, 2]], [[1, 2]]])
    gaps = gaps_of(changes(), [3, 5])
    plan = build_plan(model, CANDIDATES, heads, Bands(LEVELS, 3), gaps)
    steps = run_steps(plan.schedule, LEVELS, lambda _: False)
    assert [step.assignment for step in steps] == [
        "dense", "dense", "sparse-1", "reuse", "sparse-1", "reuse",
    ]  # fmt: skip
    assert [step.slopes for step in steps if step.slopes is not None] == [
        gap.slopes for gap in gaps
    ]
    assert plan.assignments == {"sparse-1": ((names[1], names[2]),)}
    assert type(plan).from_dict(plan.to_dict()) == plan
    all_reused = build_plan(
        model, CANDIDATES, heads, Bands(LEVELS, 3), gaps_of(changes(), [2, 3, 4, 5])
    )
    assert not all_reused.assignments
    assert not all_reused.patterns
