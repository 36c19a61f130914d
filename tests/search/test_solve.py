import itertools

import numpy as np
import pytest

from ajour.search import solve


def test_it_is_the_best_of_all_choices():
    rng = np.random.default_rng(0)
    for _ in range(20):
        errors, costs = rng.random((2, 2, 3)), rng.random((2, 2, 3))
        budget = float(costs.min(-1).mean() + rng.random() * 0.3)
        chosen = solve(errors, costs, budget)
        flat_errors, flat_costs = errors.reshape(4, 3), costs.reshape(4, 3)
        feasible = [
            sum(flat_errors[i, c] for i, c in enumerate(choice))
            for choice in itertools.product(range(3), repeat=4)
            if sum(flat_costs[i, c] for i, c in enumerate(choice)) <= 4 * budget + 1e-9
        ]
        found = np.take_along_axis(errors, chosen[..., None], -1).sum()
        assert found == pytest.approx(min(feasible))
        assert np.take_along_axis(costs, chosen[..., None], -1).mean() <= budget + 1e-9


def test_a_generous_budget_takes_the_least_error_everywhere():
    errors = np.random.default_rng(1).random((3, 4, 5))
    assert np.array_equal(solve(errors, np.arange(5.0), 4.0), errors.argmin(-1))


def test_a_budget_that_cannot_be_met_is_refused():
    with pytest.raises(ValueError, match=r"budget of 0.1 cannot be met.*costs 0.5"):
        solve(np.ones((1, 2, 2)), np.array([0.5, 1.0]), 0.1)
