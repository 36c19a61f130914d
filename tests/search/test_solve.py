import itertools
from dataclasses import replace

import numpy as np
import pytest

from ajour.search.bands import Bands
from ajour.search.solve.knapsack import solve
from ajour.search.solve.problem import DENSE_BAND, Group, Problem, time_problem
from ajour.search.timing.costs import Costs
from tests.pipelines.conftest import HEADS, LAYERS
from tests.search.conftest import CANDIDATES, given_costs


def groups_of(kind, costs):
    """Groups of a problem: each candidate by itself, some together, both, or none."""
    bands, count = costs.shape
    groups = []
    if "each" in kind:
        groups += [Group(np.arange(count) == c, 0.4 * costs[:, c]) for c in range(count)]
    if "some" in kind:
        groups.append(Group(np.arange(count) % 2 == 0, np.full(bands, 0.3)))
    return tuple(groups)


def random_problem(seed, shape=(2, 1, 2, 3), kind="none"):
    rng = np.random.default_rng(seed)
    bands, layers, heads, count = shape
    errors = rng.random(shape)
    costs = rng.random((bands, count)) + 0.1
    dense = costs.max(axis=1) * layers * heads * (0.6 + rng.random(bands))
    return Problem(errors, costs, rng.random(bands) * 0.2, dense, groups_of(kind, costs))


def all_choices(problem):
    bands, layers, heads, count = problem.errors.shape
    one_band = [
        np.array(picked).reshape(layers, heads)
        for picked in itertools.product(range(count), repeat=layers * heads)
    ]
    one_band.append(np.full((layers, heads), DENSE_BAND))
    return [np.stack(picked) for picked in itertools.product(one_band, repeat=bands)]


@pytest.mark.parametrize("kind", ["none", "each", "some", "each and some"])
@pytest.mark.parametrize("seed", range(12))
def test_it_is_the_best_of_all_choices(seed, kind):
    problem = random_problem(seed, kind=kind)
    choices = all_choices(problem)
    times = [problem.seconds(choice) for choice in choices]
    budget = float(np.quantile(times, 0.1 + 0.07 * seed))
    choice = solve(problem, budget)
    least = min(problem.error(c) for c, t in zip(choices, times, strict=True) if t <= budget + 1e-9)
    assert problem.seconds(choice) <= budget + 1e-6
    assert problem.error(choice) == pytest.approx(least, rel=2e-4 if kind == "none" else 2e-3)


@pytest.mark.parametrize("seed", range(24))
def test_it_is_the_best_with_dear_and_overlapping_groups(seed):
    """Candidates that open nothing new, or something dear, are not thrown away by mistake."""
    rng = np.random.default_rng(seed)
    problem = random_problem(seed, (1, 1, 3, 5))
    groups = [Group(rng.random(5) < 0.5, rng.random(1) * 2) for _ in range(3)]
    problem = replace(problem, groups=tuple(groups), dense=np.array([100.0]))
    choices = all_choices(problem)
    times = [problem.seconds(choice) for choice in choices]
    budget = float(np.quantile(times, 0.05 + 0.1 * (seed % 3)))
    choice = solve(problem, budget)
    least = min(problem.error(c) for c, t in zip(choices, times, strict=True) if t <= budget + 1e-9)
    assert problem.seconds(choice) <= budget + 1e-6
    assert problem.error(choice) == pytest.approx(least, rel=2e-3)


def test_errors_and_times_of_a_choice():
    problem = Problem(
        np.arange(8.0).reshape(2, 1, 2, 2), np.array([[1.0, 2.0], [10.0, 20.0]]),
        np.array([0.5, 5.0]), np.array([100.0, 1000.0]),
    )  # fmt: skip
    choice = np.array([[[0, 1]], [[DENSE_BAND, DENSE_BAND]]])
    assert problem.seconds(choice) == 0.5 + 1 + 2 + 1000
    assert problem.error(choice) == 0 + 3


def test_the_first_head_of_a_candidate_in_a_layer_costs_more():
    alone = [Group(np.arange(2) == one, np.array([0.5 * cost])) for one, cost in ((0, 1), (1, 10))]
    problem = Problem(
        np.zeros((1, 2, 2, 2)), np.array([[1.0, 10.0]]), np.zeros(1), np.array([100.0]),
        tuple(alone),
    )  # fmt: skip
    assert problem.seconds(np.array([[[0, 0], [0, 1]]])) == (2 + 0.5) + (1 + 10 + 0.5 * 11)


def test_a_layer_pays_once_for_a_group():
    pooled = Group(np.array([False, True, True]), np.array([0.25]))
    problem = Problem(
        np.zeros((1, 3, 2, 3)), np.array([[1.0, 2.0, 4.0]]), np.zeros(1), np.array([100.0]),
        (pooled,),
    )  # fmt: skip
    assert problem.seconds(np.array([[[0, 0], [1, 2], [0, 1]]])) == 2 + (6 + 0.25) + (3 + 0.25)


def test_a_sweep_opens_a_group_that_is_only_worth_it_for_all_heads_together():
    pooled = Group(np.array([False, True, True]), np.array([0.5]))
    problem = Problem(
        np.array([[[[0.1, 0.0, 0.2], [0.1, 0.0, 0.2]]]]), np.ones((1, 3)), np.zeros(1),
        np.array([100.0]), (pooled,),
    )  # fmt: skip
    for price, expected in ((0.3, 1), (0.5, 0)):
        values = {one: problem.error(c) + price * problem.seconds(c)
                  for one in (0, 1) for c in [np.full((1, 1, 2), one)]}  # fmt: skip
        assert min(values, key=values.get) == expected
        assert (problem.at_price(price) == expected).all()


def test_a_sweep_leaves_a_group_that_is_not_worth_its_price():
    pooled = Group(np.array([False, True]), np.array([0.5]))
    problem = Problem(
        np.array([[[[0.1, 0.0], [0.1, 0.0]]]]), np.array([[1.0, 1.0]]), np.zeros(1),
        np.array([100.0]), (pooled,),
    )  # fmt: skip
    assert (problem.at_price(0.1) == 1).all()
    assert (problem.at_price(1.0) == 0).all()


def test_a_sweep_lets_heads_share_a_candidate():
    problem = Problem(
        np.array([[[[0.0, 0.1], [0.1, 0.0]]]]), np.array([[1.0, 1.0]]), np.zeros(1),
        np.array([100.0]), tuple(Group(np.arange(2) == one, np.array([0.5])) for one in range(2)),
    )  # fmt: skip
    assert len(np.unique(problem.at_price(0.1))) == 2
    assert len(np.unique(problem.at_price(0.5))) == 1


def test_a_generous_budget_runs_dense_and_a_tight_one_is_refused():
    problem = random_problem(3)
    assert (solve(problem, 1e9) == DENSE_BAND).all()
    with pytest.raises(ValueError, match=r"budget of 0.001 s cannot be met.*choice has .* s"):
        solve(problem, 0.001)


def test_an_error_names_a_budget_of_density():
    problem = replace(random_problem(3), unit="density")
    whole = float(problem.dense.sum())
    with pytest.raises(ValueError, match=r"^a budget of density 0.001 cannot be met"):
        solve(problem, 0.001 * whole)


@pytest.mark.parametrize("most", [0, 10**6])  # errors up to which first heads cost more
def test_the_problem_costs_what_the_cost_model_says(monkeypatch, most):
    monkeypatch.setattr("ajour.search.solve.problem.MOST_SHARED", most)
    costs = Costs.from_dict(given_costs() | {"layer": 0.1, "pooling": 0.2, "first": 0.3})
    rng, count = np.random.default_rng(0), len(CANDIDATES)
    bands = Bands((1.0, 0.9, 0.6, 0.3), 2)
    problem = time_problem(rng.random((2, LAYERS, HEADS, count)), costs, np.array(bands.lengths))
    for _ in range(20):
        rows = [rng.permutation(count)[:HEADS] for _ in range(2 * LAYERS)]  # all heads are first
        choice = np.array(rows).reshape(2, LAYERS, HEADS)
        expected = sum(2 * (costs.other + costs.attention(picked)) for picked in choice)
        assert problem.seconds(choice) == pytest.approx(expected)
    alike = np.full((2, LAYERS, HEADS), costs.pooled.index(True))
    expected = sum(2 * (costs.other + costs.attention(picked)) for picked in alike)
    spent = problem.seconds(alike)
    assert spent == pytest.approx(expected) if most else spent > expected
