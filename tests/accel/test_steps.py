"""The rule for steps: what each step of a run does, from a schedule and noise levels alone."""

import pytest

from ajour import Phase, Schedule
from ajour.steps import Step, run_steps

DENSE, REUSE, SPARSE, MAPS = "dense", "reuse", "sparse", "maps"


def names(phases, noise_levels, first=0):
    schedule = Schedule(tuple(Phase(*phase) for phase in phases))
    return [s.assignment for s in run_steps(schedule, noise_levels, lambda _: False, first)]


def even(steps):
    """Noise levels of a run without shift."""
    return [1 - step / steps for step in range(steps)]


EVERY_OTHER = [
    (1.0, DENSE), (0.775, REUSE), (0.725, SPARSE), (0.675, REUSE), (0.625, SPARSE), (0.525, REUSE),
    (0.475, SPARSE),
]  # fmt: skip
"""Made for 20 even steps."""


def test_reused_steps_are_those_of_the_phase():
    steps = names(EVERY_OTHER, even(20))
    assert steps[:5] == [DENSE] * 5
    assert steps[5:12] == [REUSE, SPARSE, REUSE, SPARSE, SPARSE, REUSE, SPARSE]
    assert REUSE not in steps[11:]


def test_twice_as_many_steps_reuse_the_same_share():
    assert names(EVERY_OTHER, even(40)).count(REUSE) == 6


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 10])
def test_runs_of_fewer_steps_compute_them(steps):
    """The last computed step is farther away than in the run that the plan was made for."""
    computed = names(EVERY_OTHER, even(steps))
    assert REUSE not in computed
    assert computed == [Schedule(tuple(Phase(*p) for p in EVERY_OTHER)).at(x) for x in even(steps)]


def test_a_run_that_begins_among_reused_steps_computes_the_first():
    steps = names(EVERY_OTHER, even(20), first=5)
    assert steps[5:8] == [DENSE, SPARSE, REUSE]


def test_a_computed_phase_between_two_steps_is_not_lost():
    """A run of fewer steps may have none in a narrow phase: the step behind it is computed."""
    phases = [(1.0, DENSE), (0.9, REUSE), (0.62, SPARSE), (0.58, REUSE)]
    assert names(phases, [1.0, 0.8, 0.6, 0.4, 0.2]) == [DENSE, REUSE, SPARSE, REUSE, REUSE]
    assert names(phases, [1.0, 0.8, 0.65, 0.5, 0.3]) == [DENSE, REUSE, REUSE, SPARSE, REUSE]


def test_several_steps_in_a_row_are_reused():
    assert names([(1.0, SPARSE), (0.475, REUSE), (0.325, DENSE)], even(20))[10:14] == [
        SPARSE, REUSE, REUSE, REUSE,
    ]  # fmt: skip


def test_reused_steps_are_no_reason_to_measure():
    """Maps are measured in the last computed step before they are used."""
    schedule = Schedule((Phase(1.0, DENSE), Phase(0.65, REUSE), Phase(0.45, MAPS)))
    steps = run_steps(schedule, [1.0, 0.8, 0.6, 0.4, 0.2], {MAPS}.__contains__)
    assert steps == (
        Step(DENSE), Step(DENSE, True), Step(REUSE), Step(MAPS), Step(MAPS),
    )  # fmt: skip


def test_a_schedule_cannot_begin_with_reuse():
    with pytest.raises(ValueError, match="first phase cannot reuse"):
        Schedule((Phase(1.0, REUSE),))
    with pytest.raises(ValueError, match="no dense_every, got 3"):
        Schedule((Phase(1.0, DENSE), Phase(0.5, REUSE, 3)))
    for slopes in ((1.0, 2.0, 3.0), (9.0,), (True,), ("a",), (float("nan"),)):
        with pytest.raises(ValueError, match="at most 2 numbers from -8 to 8"):
            Schedule((Phase(1.0, DENSE), Phase(0.5, REUSE, 0, slopes)))
    with pytest.raises(ValueError, match="slopes are for reused steps, got them for 'sparse'"):
        Schedule((Phase(1.0, DENSE), Phase(0.5, SPARSE, 0, (1.0,))))


def test_slopes_belong_to_the_phase():
    phases = (Phase(1.0, DENSE), Phase(0.55, REUSE, 0, (0.5, 0.25)), Phase(0.25, DENSE))
    steps = run_steps(Schedule(phases), [1.0, 0.75, 0.5, 0.3, 0.1], lambda _: False)
    assert [step.slopes for step in steps] == [None, None, (0.5, 0.25), (0.5, 0.25), None]
