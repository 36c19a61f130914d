import numpy as np
import pytest

from ajour.search.balance import (
    CLOSE_DB,
    CLOSE_SPEED,
    SCATTER_DB,
    TRIES,
    USUAL_SLOPE,
    Tried,
    balance,
    decibels,
    expected_level,
)
from ajour.search.baselines import SLOWER, single_families
from ajour.search.settings import Target
from ajour.search.solve import DENSE_BAND, Problem, frontier


@pytest.fixture
def problem():
    """Heads whose errors fall steeply with time, in bands that count less and less."""
    rng = np.random.default_rng(0)
    costs = np.linspace(1.0, 0.0, 12)
    errors = 10 ** (rng.normal(size=(4, 6, 4, 1)) * 0.7 - 6 * costs + rng.normal(size=12) * 0.1)
    errors[..., 0] = 0
    errors *= 10.0 ** -np.arange(4)[:, None, None, None]
    return Problem(errors, np.tile(costs, (4, 1)), np.full(4, 6.0), np.full(4, 32.0))


def run(problem, target, quality, clock=None):
    """Balance where verification finds `quality` of a choice, in dB."""

    def verify(choice):
        found = {"psnr_db": quality(choice)}
        return Tried(choice, problem.seconds(choice), decibels(problem, choice), found)

    return balance(problem, Target(*target), verify, clock, problem)


@pytest.mark.parametrize("wanted", [25, 32, 40])
def test_the_fastest_plan_of_a_quality_is_found_through_a_bent_scale(problem, wanted):
    def quality(choice):
        predicted = decibels(problem, choice)
        return 8 + predicted + 0.02 * predicted**2

    best, tried, met = run(problem, ("psnr", wanted), quality)
    assert met
    assert len(tried) <= TRIES
    assert wanted <= best.found["psnr_db"] < wanted + 2 * CLOSE_DB
    assert best.seconds == min(t.seconds for t in tried if t.found["psnr_db"] >= wanted)


@pytest.mark.parametrize("slope", [0.7, 0.9, 1.2])
def test_few_plans_are_verified_where_neighbours_scatter(problem, slope):
    """As seen with the bundled model: plans of neighbouring budgets differ by half a decibel."""
    counts = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        offset = 32.0 - slope * 15 + rng.normal() * 0.5

        def quality(choice, rng=rng, offset=offset):
            return offset + slope * decibels(problem, choice) + rng.normal() * SCATTER_DB

        best, tried, met = run(problem, ("psnr", 33.2), quality)
        assert met, [one.found for one in tried]
        counts.append(len(tried))
    assert np.mean(counts) <= 2.6
    assert np.mean(np.array(counts) > 3) <= 0.2


def test_no_plan_is_verified_twice_where_the_frontier_is_coarse():
    """Four plans in all: what a budget gives is known soon, and the next one up has the quality."""
    errors = np.full((1, 1, 1, 3), 1.0)
    errors[0, 0, 0] = [0.0, 1e-3, 1e-2]
    problem = Problem(errors, np.array([[0.9, 0.5, 0.1]]), np.zeros(1), np.ones(1))
    best, tried, met = run(problem, ("psnr", 35), lambda choice: 40.0 - 10 * choice.item())
    assert met
    assert len({one.choice.tobytes() for one in tried}) == len(tried)
    assert best.found["psnr_db"] == 40.0


def seen(predicted, found):
    return Tried(None, 1.0, predicted, {"psnr_db": found})


def test_two_near_plans_do_not_tell_the_slope_and_two_far_ones_do():
    near = expected_level([seen(16.07, 32.80), seen(16.78, 32.63)], 33.4)  # scatter alone
    assert 17.0 < near < 18.0
    far = expected_level([seen(10.0, 20.0), seen(20.0, 40.0)], 33.4)
    assert far == pytest.approx(16.7, abs=0.3)
    one = expected_level([seen(16.0, 30.0)], 33.0)
    assert one == pytest.approx(16.0 + 3.0 / USUAL_SLOPE)


def test_a_quality_that_no_sparse_plan_has_is_missed(problem):
    def quality(choice):
        return 99.0 if (choice == DENSE_BAND).all() else 20.0

    best, tried, met = run(problem, ("psnr", 40), quality)
    assert not met
    assert best in tried


@pytest.mark.parametrize("truth", [lambda x: x, lambda x: 0.8 * x, lambda x: 1.3 * x**0.8])
def test_a_speed_is_reached_with_little_to_spare_and_verified_once(problem, truth):
    dense = problem.dense.sum()

    def clock(choice):
        return truth(dense / problem.seconds(choice))

    best, tried, met = run(problem, ("speedup", 1.5), lambda _: 30.0, clock)
    assert met
    assert tried == [best]
    assert 1.5 * (1 - 1e-9) <= clock(best.choice) <= 1.5 * (1 + CLOSE_SPEED)


def test_a_speed_out_of_reach_gives_the_fastest(problem):
    dense = problem.dense.sum()

    def clock(choice):
        return float(dense / problem.seconds(choice))

    best, _, met = run(problem, ("speedup", 99.0), lambda _: 5.0, clock)
    assert not met
    assert clock(best.choice) == pytest.approx(max(clock(c) for c in frontier(problem)))


def test_simple_plans_are_one_per_family_and_within_the_time(problem):
    names = ["full", "skip", *(f"{family}-{i}" for i in range(5) for family in ("band", "box"))]
    found = single_families(problem, names, 60.0)
    assert sorted(name.split("-")[0] for name, _ in found) == ["band", "box"]
    for _, choice in found:
        assert problem.seconds(choice) <= SLOWER * 60.0
        sparse = choice[choice != DENSE_BAND]
        assert len(np.unique(sparse)) == 1
