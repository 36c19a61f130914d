import pytest

from ajour.search.report.figures import fitted


def test_a_frontier_runs_through_the_plan_as_measured_and_keeps_its_shape():
    frontier = [(45.0, 25.0), (30.0, 15.0), (15.0, 5.0)]
    slower, same, faster = fitted(frontier, predicted=(30.0, 15.0), measured=(1.5, 33.0))
    assert same == pytest.approx((1.5, 33.0))
    assert slower == pytest.approx((1.0, 43.0))
    assert faster == pytest.approx((3.0, 23.0))
