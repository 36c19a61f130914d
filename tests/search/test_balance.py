import numpy as np
import pytest

from ajour.search.balance import CLOSE_DB, CLOSE_SPEED, TRIES, balance, decibels
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


def run(problem, target, verify, clock=None):
    return balance(problem, Target(*target), verify, clock, problem)


@pytest.mark.parametrize("wanted", [25, 32, 40])
def test_the_fastest_plan_of_a_quality_is_found_through_a_bent_scale(problem, wanted):
    def verify(choice):
        predicted = decibels(problem, choice)
        return {"psnr_db": 8 + predicted + 0.02 * predicted**2, "speedup": 1.0}

    best, tried, met = run(problem, ("psnr", wanted), verify)
    assert met
    assert len(tried) <= TRIES
    assert wanted <= best.found["psnr_db"] < wanted + 2 * CLOSE_DB
    assert best.seconds == min(t.seconds for t in tried if t.found["psnr_db"] >= wanted)


def test_a_quality_that_no_sparse_plan_has_is_missed(problem):
    def verify(choice):
        return {"psnr_db": 99.0 if (choice == DENSE_BAND).all() else 20.0, "speedup": 1.0}

    best, tried, met = run(problem, ("psnr", 40), verify)
    assert not met
    assert best in tried


@pytest.mark.parametrize("truth", [lambda x: x, lambda x: 0.8 * x, lambda x: 1.3 * x**0.8])
def test_a_speed_is_reached_with_little_to_spare_and_verified_once(problem, truth):
    dense = problem.dense.sum()

    def clock(choice):
        return truth(dense / problem.seconds(choice))

    best, tried, met = run(problem, ("speedup", 1.5), lambda choice: {"psnr_db": 30.0}, clock)
    assert met
    assert tried == [best]
    assert 1.5 * (1 - 1e-9) <= clock(best.choice) <= 1.5 * (1 + CLOSE_SPEED)


def test_a_speed_out_of_reach_gives_the_fastest(problem):
    dense = problem.dense.sum()

    def clock(choice):
        return float(dense / problem.seconds(choice))

    best, _, met = run(problem, ("speedup", 99.0), lambda choice: {"psnr_db": 5.0}, clock)
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
