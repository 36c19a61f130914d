"""Targets with bounds on what viewers see, where verification measures given figures."""

from dataclasses import replace

import numpy as np
import pytest

from ajour.search.bounds import Bounds
from ajour.search.settings import Settings, Target
from ajour.search.solve.target import CLOSE_DB, TRIES, best_of, meets, reach
from tests.search.conftest import verified_plan
from tests.search.test_target import problem

__all__ = ["problem"]


def figures(psnr_db, perceptual=0.0, banding=0.0, flicker=1.0):
    plan = verified_plan(psnr_db=psnr_db)
    quality = replace(
        plan.quality, perceptual=perceptual, banding=banding, warp=flicker, dense_warp=1.0
    )
    return replace(plan, quality=quality)


def run(problem, target, measure):
    """Reach a target; `measure` gives the figures of a PSNR, which is 15 dB above the predicted."""
    seen = []

    def verify(choice):
        decibels = problem.decibels(choice)
        plan = figures(15 + decibels, **measure(15 + decibels))
        seen.append(choice.key)
        return replace(plan, choice=choice, seconds=problem.seconds(choice), decibels=decibels)

    result = reach(target, problem, problem, verify, lambda c: 60.0 / problem.seconds(c))
    assert len(seen) == len(set(seen)) <= TRIES
    return result


def amplitude(psnr_db):
    return 10 ** (-psnr_db / 20)


MEASURES = {
    "perceptual": lambda db: {"perceptual": 2.0 * amplitude(db) ** 0.8},
    "banding": lambda db: {"banding": 50.0 * amplitude(db)},
    "flicker": lambda db: {"flicker": 1 + 400 * amplitude(db) ** 2},
}
LIMITS = {"perceptual": 0.05, "banding": 0.5, "flicker": 1.02}


@pytest.mark.parametrize("name", MEASURES)
def test_a_bound_is_reached_by_aiming_higher_with_little_to_spare(problem, name):
    def measure(psnr_db):
        return MEASURES[name](psnr_db)

    free, _, _ = run(problem, Target("psnr", 30), measure)
    assert measure(free.psnr_db)[name] > LIMITS[name]
    target = Target("psnr", 30, Bounds(**{name: LIMITS[name]}))
    best, plans, met = run(problem, target, measure)
    assert met
    assert meets(best, target)
    assert measure(best.psnr_db)[name] <= LIMITS[name] < measure(best.psnr_db - 2 * CLOSE_DB)[name]
    assert best.seconds == min(plan.seconds for plan in plans if meets(plan, target))


def test_all_bounds_must_hold(problem):
    def measure(psnr_db):
        return {name: value for each in MEASURES.values() for name, value in each(psnr_db).items()}

    target = Target("psnr", 30, Bounds(**LIMITS))
    best, _, met = run(problem, target, measure)
    assert met
    assert all(measure(best.psnr_db)[name] <= limit for name, limit in LIMITS.items())


def test_bounds_with_room_change_nothing(problem):
    plain = run(problem, Target("psnr", 33), lambda _: {})
    loose = Bounds(perceptual=0.9, banding=7, flicker=50)
    bound = run(problem, Target("psnr", 33, loose), lambda _: {})
    assert [plan.choice.key for plan in bound[1]] == [plan.choice.key for plan in plain[1]]


def test_a_bound_that_no_plan_holds_is_missed_by_the_nearest_plan(problem):
    target = Target("psnr", 30, Bounds(banding=0.5))
    best, plans, met = run(problem, target, lambda db: {"banding": 1 + amplitude(db)})
    assert not met
    assert best.quality.banding == min(plan.quality.banding for plan in plans)


@pytest.mark.parametrize("target", [Target("speedup", 1.5), Target("density", 0.5)], ids=str)
@pytest.mark.parametrize(("limit", "held"), [(1.0, True), (0.5, False)])
def test_a_target_of_speed_or_density_needs_its_bounds_too(problem, target, limit, held):
    bound = replace(target, bounds=Bounds(banding=limit))
    plain = run(problem, target, lambda _: {"banding": 0.7})
    best, plans, met = run(problem, bound, lambda _: {"banding": 0.7})
    assert plain[2]
    assert met is held
    assert plans == [best]
    assert best.choice.key == plain[0].choice.key


def test_the_best_plan_holds_the_bounds():
    plans = [
        replace(figures(psnr, banding=banding), seconds=seconds)
        for psnr, banding, seconds in ((36, 0.2, 3.0), (33, 0.6, 2.0), (31, 1.2, 1.0))
    ]
    assert best_of(plans, Target("psnr", 30)) is plans[2]
    assert best_of(plans, Target("psnr", 30, Bounds(banding=0.6))) is plans[1]
    assert best_of(plans, Target("psnr", 30, Bounds(banding=0.1))) is plans[0]
    assert best_of(plans, Target("density", 0.5, Bounds(banding=1.0))) is plans[0]


def test_what_a_bound_misses_is_in_decibels():
    bounds = Bounds(perceptual=0.05, banding=1.0, flicker=1.1)
    good = figures(30, 0.05, 1.0, 1.1).quality
    assert bounds.margin_db(good) == pytest.approx(0)
    assert bounds.missed(good) == {}
    for changes in ({"perceptual": 0.1}, {"banding": 2.0}, {"warp": 1.4}):
        quality = replace(good, **changes)
        assert bounds.margin_db(quality) == pytest.approx(-6.02, abs=0.01)
        (name,) = bounds.missed(quality)
        assert name in ("flicker" if "warp" in changes else changes)
    assert bounds.margin_db(figures(30).quality) == np.inf
    assert Bounds().margin_db(good) == np.inf


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"perceptual": 0}, "a bound of perceptual is over 0 up to 1, got 0"),
        ({"banding": 8}, "a bound of banding is over 0 up to 7, got 8"),
        ({"flicker": 1}, "a bound of flicker is over 1 up to 99, got 1"),
        ({"flicker": float("nan")}, "a bound of flicker is over 1 up to 99, got nan"),
    ],
)
def test_bounds_out_of_range_are_refused(bounds, said):
    with pytest.raises(ValueError, match=said):
        Bounds(**bounds)


def test_a_target_names_its_bounds_only_if_there_are_some():
    assert str(Target("psnr", 33)) == "33 dB"
    assert Target("psnr", 33).to_dict() == {"kind": "psnr", "value": 33}
    bound = Target("psnr", 33, Bounds(banding=1, flicker=1.1))
    assert str(bound) == "33 dB, banding at most 1, flicker at most 1.1"
    assert bound.to_dict()["bounds"] == {"banding": 1, "flicker": 1.1}


def test_measurements_do_not_depend_on_bounds():
    free = Settings("m", Target("psnr", 33), ("a",), ("b",))
    bound = replace(free, target=Target("psnr", 33, Bounds(banding=1)))
    assert free.identity() == bound.identity()


def test_flicker_of_a_still_dense_video_is_a_number():
    quality = figures(30).quality
    assert replace(quality, warp=0.0, dense_warp=0.0).flicker == 1
    assert replace(quality, warp=0.1, dense_warp=0.0).flicker == 99
