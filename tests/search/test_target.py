import numpy as np
import pytest

from ajour.search.bands import Bands
from ajour.search.settings import Target
from ajour.search.solve.joint import RunProblem
from ajour.search.solve.plan import SLOWER, single_patterns
from ajour.search.solve.problem import DENSE_BAND, Problem
from ajour.search.solve.target import (
    CLOSE_DB,
    CLOSE_SPEED,
    LEAST_SPREAD_DB,
    SCATTER_DB,
    TRIES,
    USUAL_SLOPE,
    best_of,
    expected_level,
    reach,
)
from tests.search.conftest import verified_plan


@pytest.fixture
def problem():
    """Heads whose errors fall steeply with time, in bands that count less and less."""
    rng = np.random.default_rng(0)
    costs = np.linspace(1.0, 0.0, 12)
    errors = 10 ** (rng.normal(size=(4, 6, 4, 1)) * 0.7 - 6 * costs + rng.normal(size=12) * 0.1)
    errors[..., 0] = 0
    errors *= 10.0 ** -np.arange(4)[:, None, None, None]
    return only(Problem(errors, np.tile(costs, (4, 1)), np.full(4, 6.0), np.full(4, 32.0)))


def only(problem):
    """A run of one step per band, all of them computed."""
    bands = len(problem.errors)
    return RunProblem(lambda _: problem, Bands(tuple(np.linspace(1, 0.1, bands)), bands))


def run(problem, target, quality, speedup=None):
    """Reach a target where verification measures `quality` of a choice, in dB."""

    def verify(choice):
        seconds, decibels = problem.seconds(choice), problem.decibels(choice)
        return verified_plan(choice, seconds, decibels, quality(choice))

    return reach(Target(*target), problem, problem, verify, speedup)


@pytest.mark.parametrize("wanted", [25, 32, 40])
def test_the_fastest_plan_of_a_quality_is_found_through_a_bent_scale(problem, wanted):
    def quality(choice):
        predicted = problem.decibels(choice)
        return 8 + predicted + 0.02 * predicted**2

    best, plans, met = run(problem, ("psnr", wanted), quality)
    assert met
    assert len(plans) <= TRIES
    assert wanted <= best.psnr_db < wanted + 2 * CLOSE_DB
    assert best.seconds == min(plan.seconds for plan in plans if plan.psnr_db >= wanted)


@pytest.mark.parametrize("slope", [0.7, 0.9, 1.2])
def test_few_plans_are_verified_where_neighbours_scatter(problem, slope):
    """As seen with the bundled model: plans of neighbouring budgets differ by half a decibel."""
    counts = []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        offset = 32.0 - slope * 15 + rng.normal() * 0.5

        def quality(choice, rng=rng, offset=offset):
            return offset + slope * problem.decibels(choice) + rng.normal() * SCATTER_DB

        _, plans, met = run(problem, ("psnr", 33.2), quality)
        assert met, [plan.psnr_db for plan in plans]
        counts.append(len(plans))
    assert np.mean(counts) <= 2.6
    assert np.mean(np.array(counts) > 3) <= 0.2


def test_no_plan_is_verified_twice_where_the_frontier_is_coarse():
    """Four plans in all: a budget soon gives a known plan, and the next has the quality."""
    errors = np.full((1, 1, 1, 3), 1.0)
    errors[0, 0, 0] = [0.0, 1e-3, 1e-2]
    problem = only(Problem(errors, np.array([[0.9, 0.5, 0.1]]), np.zeros(1), np.ones(1)))
    best, plans, met = run(problem, ("psnr", 35), lambda choice: 40.0 - 10 * choice.heads.item())
    assert met
    assert len({plan.choice.key for plan in plans}) == len(plans)
    assert best.psnr_db == 40.0


def test_two_near_plans_do_not_tell_the_slope_and_two_far_plans_do():
    assert expected_level([(16.0, 30.0)], 33.0) == pytest.approx(16.0 + 3.0 / USUAL_SLOPE)
    near = expected_level([(16.07, 32.80), (16.78, 32.63)], 33.4)  # scatter alone
    assert 17.0 < near < 18.0
    far = expected_level([(10.0, 20.0), (20.0, 40.0)], 33.4)
    assert far == pytest.approx(16.7, abs=0.3)


def test_plans_closer_than_the_least_distance_leave_the_slope_at_the_usual():
    def level(distance):  # two plans of one quality, so both weigh the same
        return expected_level([(16.0, 32.0), (16.0 + distance, 32.0)], 33.0) - distance / 2

    assert level(0.99 * LEAST_SPREAD_DB) == pytest.approx(16.0 + 1.0 / USUAL_SLOPE)
    assert level(1.01 * LEAST_SPREAD_DB) > 16.5 + 1.0 / USUAL_SLOPE


def test_a_quality_that_no_sparse_plan_has_is_missed(problem):
    def quality(choice):
        return 99.0 if (choice.heads == DENSE_BAND).all() else 20.0

    best, plans, met = run(problem, ("psnr", 40), quality)
    assert not met
    assert best in plans


@pytest.mark.parametrize("truth", [lambda x: x, lambda x: 0.8 * x, lambda x: 1.3 * x**0.8])
def test_a_speed_is_reached_with_little_to_spare_and_verified_once(problem, truth):
    dense = problem.dense_seconds

    def speedup(choice):
        return truth(dense / problem.seconds(choice))

    best, plans, met = run(problem, ("speedup", 1.5), lambda _: 30.0, speedup)
    assert met
    assert plans == [best]
    assert 1.5 * (1 - 1e-9) <= speedup(best.choice) <= 1.5 * (1 + CLOSE_SPEED)


def test_a_speed_out_of_reach_gives_the_fastest(problem):
    def speedup(choice):
        return problem.dense_seconds / problem.seconds(choice)

    best, _, met = run(problem, ("speedup", 99.0), lambda _: 5.0, speedup)
    assert not met
    assert speedup(best.choice) == pytest.approx(max(speedup(c) for c in problem.frontier))


@pytest.mark.parametrize(
    ("target", "best"),
    [
        (Target("psnr", 28), (1.4, 29)),
        (Target("psnr", 40), (1.1, 35)),
        (Target("speedup", 1.3), (1.4, 29)),
        (Target("speedup", 3.0), (1.6, 25)),
    ],
    ids=str,
)
def test_the_best_of_verified_plans(target, best):
    plans = [
        verified_plan(seconds=1 / speedup, psnr_db=psnr, speedup=speedup)
        for speedup, psnr in ((1.1, 35), (1.4, 29), (1.6, 25))
    ]
    chosen = best_of(plans, target)
    assert (chosen.speedup, chosen.psnr_db) == best


def test_single_patterns_are_one_per_kind_and_within_the_time(problem):
    names = ["full", "skip", *(f"{kind}-{i}" for i in range(5) for kind in ("band", "box"))]
    choices = single_patterns(problem.computed, names, 60.0)
    assert sorted(name.split("-")[0] for name, _ in choices) == ["band", "box"]
    for _, choice in choices:
        assert problem.computed.seconds(choice) <= SLOWER * 60.0
        sparse = choice[choice != DENSE_BAND]
        assert len(np.unique(sparse)) == 1
