"""Hostile plan files: only PlanError, with short messages, and nothing unbounded gets through."""

import json
import math
import sys

import pytest

from ajour import KINDS, Captured, Plan, PlanError, TokenGrid, lower
from ajour.lowering import level_map
from tests.accel.test_plan import GOOD, edited

LIMIT = 400
"""Characters of a whole message: the rule, and at most a hundred characters of what came."""


def nested(depth, inner=0):
    value = inner
    for _ in range(depth):
        value = [value]
    return value


def made(data):
    """The plan, or None and the message of a PlanError."""
    try:
        return Plan.from_dict(data), ""
    except PlanError as error:
        return None, str(error)


PLACES = [
    ["format"],
    ["format_version"],
    ["model"],
    ["model", "transformer"],
    ["model", "layers"],
    ["patterns"],
    ["patterns", "near"],
    ["patterns", "near", "kind"],
    ["patterns", "near", "frames"],
    ["patterns", "near", "order"],
    ["patterns", "band", "frames"],
    ["assignments"],
    ["assignments", "sparse"],
    ["assignments", "sparse", 0],
    ["assignments", "sparse", 0, 0],
    ["schedule"],
    ["schedule", 0],
    ["schedule", 0, "assignment"],
    ["schedule", 0, "from_noise_level"],
    ["schedule", 0, "dense_every"],
    ["provenance"],
    ["provenance", "made_by"],
    ["extra"],
]


@pytest.mark.parametrize("depth", [40, 900, 100_000])
@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)))
def test_nesting_of_any_depth_is_a_plan_error_or_can_be_saved(path, depth, tmp_path):
    value = nested(depth)
    plan, message = made(edited(path, value))
    assert len(message) < LIMIT
    if plan is not None:
        plan.save(tmp_path / "plan.json")
        assert Plan.load(tmp_path / "plan.json") == plan


@pytest.mark.parametrize("depth", [100, 700, 990, 3000])
def test_a_file_of_nested_provenance_can_be_saved_or_is_refused(depth, tmp_path):
    path = tmp_path / "plan.json"
    deep = "[" * depth + "]" * depth
    path.write_text(json.dumps(GOOD).replace('"hand"', deep))
    with pytest.raises(PlanError, match="at most 64 levels"):
        Plan.load(path)


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, "\ud800", 10**5000, 2**64, b"x", {1: 2}, {"\udfff": 1}, object],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"a": [1, (x,)]}], ids=["bare", "inside"])
def test_provenance_is_json_that_can_be_written(value, wrap):
    with pytest.raises(PlanError, match="provenance") as refusal:
        Plan.from_dict(edited(["provenance", "made_by"], wrap(value)))
    assert len(str(refusal.value)) < LIMIT


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have_are_refused_in_files(number, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(GOOD).replace('"hand"', number))
    with pytest.raises(PlanError):
        Plan.load(path)


def test_nan_put_into_provenance_later_is_not_written(tmp_path):
    plan = Plan.from_dict(edited(["provenance", "psnr"], 1.0))
    plan.provenance["psnr"] = math.nan
    with pytest.raises(PlanError, match=r"provenance.*nan"):
        plan.save(tmp_path / "plan.json")
    assert not list(tmp_path.iterdir())


LONG = "x" * 100_000


@pytest.mark.parametrize("value", [LONG, [LONG], {LONG: LONG}, 10**5000, "\ud800"], ids=range(5))
@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)))
def test_messages_quote_little(path, value):
    plan, message = made(edited(path, value))
    assert plan is None or path[0] == "provenance"
    assert len(message) < LIMIT
    message.encode()


def test_long_lists_of_names_are_cut():
    data = edited(["patterns"], {f"pattern-{i}": {"kind": "full"} for i in range(900)})
    with pytest.raises(PlanError, match="uses unknown pattern 'near'") as refusal:
        Plan.from_dict(data)
    assert len(str(refusal.value)) < LIMIT
    data = edited(["model", "x" * 50_000], 1)
    with pytest.raises(PlanError, match="unknown keys") as refusal:
        Plan.from_dict(data)
    assert len(str(refusal.value)) < LIMIT


@pytest.mark.parametrize("data", [None, 3, "plan", [], {1: 2}, {("a",): 1}, nested(10_000)])
def test_what_is_no_plan_at_all_is_a_plan_error(data):
    with pytest.raises(PlanError):
        Plan.from_dict(data)
    with pytest.raises(PlanError):
        Plan.from_dict(GOOD | {"patterns": data})
    with pytest.raises(PlanError):
        Plan.from_dict(GOOD | {"schedule": [data]})


@pytest.mark.parametrize(
    "path", ["none\0.json", "\ud800.json", "x" * 5000, "", None, 3.5, ["plan.json"]], ids=range(7)
)
def test_odd_file_names_are_plan_errors(path):
    with pytest.raises(PlanError, match="plan") as refusal:
        Plan.load(path)
    assert len(str(refusal.value)) < LIMIT
    str(refusal.value).encode()


HUGE = (10**6 + 1, 2**31, 2**63, 10**400, sys.float_info.max)


@pytest.mark.parametrize("value", HUGE, ids=["1e6+1", "2**31", "2**63", "10**400", "max"])
@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("window", {"frames": 1, "height": 1, "width": 1}),
        ("diagonal", {"frames": 1}),
        ("multi_diagonal", {"height": 1, "width": 1}),
        ("stripe", {"stride": 4, "offset": 1}),
        ("pyramid", {"frames": 1, "height": 1, "width": 1, "levels": 2, "growth": 2}),
    ],
)
def test_every_size_of_a_pattern_has_a_bound(kind, fields, value):
    for name in fields:
        with pytest.raises(PlanError, match=rf"pattern 'near': {kind}: {name} must"):
            Plan.from_dict(edited(["patterns", "near"], {"kind": kind} | fields | {name: value}))


def test_the_largest_sizes_do_not_overflow_when_lowered():
    most = 10**6
    grid = TokenGrid(3, 8, 7)
    for pattern in (
        KINDS["window"](most, most, most),
        KINDS["diagonal"](most),
        KINDS["multi_diagonal"](most, most),
        KINDS["stripe"](most, most - 1),
        KINDS["pyramid"](most, most, most, 64.0, 3),
    ):
        lower([pattern], grid)
        level_map(pattern, grid)


def test_rates_and_counts_have_bounds():
    with pytest.raises(PlanError, match="dense_every"):
        Plan.from_dict(edited(["schedule", 0, "dense_every"], 10**7))
    phases = [{"from_noise_level": 1 - i / 3000, "assignment": "dense"} for i in range(2000)]
    with pytest.raises(PlanError, match="at most 1000 phases, got 2000"):
        Plan.from_dict(edited(["schedule"], phases))
    many = {f"p{i}": {"kind": "full"} for i in range(5000)}
    with pytest.raises(PlanError, match="at most 1000 patterns, got 5003"):
        Plan.from_dict(edited(["patterns"], many | GOOD["patterns"] | {"p0": {"kind": "skip"}}))


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "x" * 200, "\ud800", "1st"])
def test_a_class_name_is_a_name(name):
    with pytest.raises(PlanError, match="model.transformer must be a class name"):
        Plan.from_dict(edited(["model", "transformer"], name))


@pytest.mark.parametrize("last", [1e-9, 5e-324, 1e-5])
@pytest.mark.parametrize("share_of", ["blocks", "attention"])
def test_a_captured_pattern_that_keeps_no_key_is_refused(last, share_of):
    with pytest.raises(ValueError, match=r"must end at 0\.0001 or above, because less"):
        Captured((0, 0, 0, last), share_of=share_of)


def test_a_captured_pattern_that_keeps_no_key_on_a_grid_is_said(caplog):
    few = Captured((0.3, 0.3, 0.3, 0.3))
    lower([few, few], TokenGrid(3, 8, 7))  # 2 blocks: the first counts as a quarter of them
    assert "keeps" not in caplog.text
    with caplog.at_level("WARNING", logger="ajour"):
        lower([few, few], TokenGrid(1, 8, 7))
        lower([few], TokenGrid(1, 8, 7))
    assert caplog.text.count("keeps no key on grid 1x8x7") == 1
