"""summary() and print(plan) fit a screen: totals first, layers in groups."""

from dataclasses import replace

import pytest

from ajour import Full, Phase, Plan, Schedule, Skip, Window
from ajour.pipelines.summary import MOST_ROWS, LayerSummary, Summary
from ajour.plan_text import schedule_text, step_counts, verified_text

LAYERS = 40
STATE = Summary(
    layers=tuple(
        LayerSummary(0, name, layer, 0.25 + 0.5 * (layer >= 20), {"window": 30, "full": 10})
        for name in ("auto", "auto-late")
        for layer in range(LAYERS)
    ),
    schedule=((1.0, "dense"), (0.9, "auto"), (0.7, "auto-late")),
    grid="21x30x52",
    backend="cpu",
    fallbacks=(),
    steps=("dense", "auto", "auto", "reuse"),
    verified="33.1 dB, 1.9x as fast as dense",
)


def test_a_summary_of_many_layers_fits_a_screen_and_begins_with_totals():
    lines = str(STATE).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert lines[0] == (
        "ajour: latest run, 4 steps: 1 dense, 2 sparse, 1 reused; mean density 0.50"
    )
    assert lines[1] == "grid 21x30x52, backend cpu"
    assert "verified in the plan's search: 33.1 dB, 1.9x as fast as dense" in lines


def test_layers_are_grouped_with_their_means_and_heads():
    groups = STATE.groups()
    assert len(groups) <= MOST_ROWS
    assert [group.layers for group in groups[:6]] == [
        "0-6", "7-13", "14-20", "21-27", "28-34", "35-39",
    ]  # fmt: skip
    assert groups[0].density == pytest.approx(0.25)
    assert groups[2].density == pytest.approx(0.25 + 0.5 / 7)
    assert groups[0].kinds == "210 window, 70 full"


def test_before_a_run_it_says_what_will_happen():
    waiting = replace(
        STATE, steps=(), grid=None, layers=tuple(replace(x, density=None) for x in STATE.layers)
    )
    first = str(waiting).splitlines()[0]
    assert first.startswith("ajour: no run yet; the next run uses: dense from 1, auto from 0.9")
    assert "grid unknown yet" in str(waiting)
    assert "?" in str(waiting)


def test_a_dense_run_is_said_to_be_one():
    dense = replace(STATE, steps=("dense",) * 4, fallbacks=("a mask",))
    assert "Nothing ran sparse" in str(dense)
    assert "ran dense: a mask" in str(dense)
    assert "Nothing ran sparse" not in str(STATE)


def plan(phases=((1.0, "dense"), (0.8, "a")), names=("a",), provenance=None):
    rows = (("window", "full"), ("window", "skip"))
    return Plan(
        {"transformer": "WanTransformer3DModel", "layers": 2, "heads": 2, "head_dim": 64},
        {"window": Window(1, 2, 2), "full": Full(), "skip": Skip()},
        dict.fromkeys(names, rows),
        Schedule(tuple(Phase(*phase) for phase in phases)),
        provenance or {},
    )


def test_a_plan_prints_as_a_short_table():
    assert str(plan()).splitlines() == [
        "model     WanTransformer3DModel, 2 layers x 2 heads",
        "schedule  dense from 1, a from 0.8",
        "a         2 window, 1 full, 1 skip",
    ]
    names = [f"a{number}" for number in range(30)]
    phases = [(1 - number / 40, name) for number, name in enumerate(names)]
    many = str(plan(phases, names)).splitlines()
    assert len(many) == 15
    assert many[-1].strip() == "and 18 more assignments"


def test_many_phases_are_summed_up():
    phases = [(1.0, "a"), (0.9, "reuse"), (0.8, "b"), (0.7, "reuse"), (0.6, "a"), (0.5, "reuse"),
              (0.4, "b")]  # fmt: skip
    assert schedule_text(phases) == "a from 1, b from 0.8, reused steps in 3 phases from 0.9"
    assert schedule_text(phases[:2]) == "a from 1, reuse from 0.9"


def test_steps_are_counted():
    assert step_counts(("dense", "a", "reuse")) == "3 steps: 1 dense, 1 sparse, 1 reused"
    assert step_counts(("a",)) == "1 step: 0 dense, 1 sparse, 0 reused"


@pytest.mark.parametrize(
    ("provenance", "text"),
    [
        ({}, ""),
        ({"verified": 3}, ""),
        ({"verified": {"psnr_db": "high", "speedup": True}}, ""),
        ({"verified": {"psnr_db": 33.12}, "grid": 7}, "33.1 dB"),
        (
            {"verified": {"psnr_db": 33.12, "speedup": 1.94}, "grid": "3x8x7", "device": "a GPU"},
            "33.1 dB, 1.9x as fast as dense, on 3x8x7, a GPU",
        ),
    ],
)
def test_what_a_search_verified_is_said_as_far_as_the_plan_has_it(provenance, text):
    assert verified_text(plan(provenance=provenance)) == text
