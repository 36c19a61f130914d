import copy
import json
import random

import pytest

from ajour import Phase, Plan, PlanError, Schedule, Window

GOOD = {
    "format": "ajour-plan",
    "format_version": 1,
    "model": {"transformer": "WanTransformer3DModel", "layers": 2, "heads": 2, "head_dim": 16},
    "patterns": {
        "near": {"kind": "window", "frames": 1, "height": 1, "width": 1},
        "band": {"kind": "diagonal", "frames": 1.5},
        "all": {"kind": "full"},
    },
    "assignments": {"sparse": [["near", "band"], ["all", "near"]]},
    "schedule": [
        {"from_noise_level": 1.0, "assignment": "dense"},
        {"from_noise_level": 0.7, "assignment": "sparse"},
    ],
    "provenance": {"made_by": "hand"},
}


def edited(path, value):
    data = copy.deepcopy(GOOD)
    target = data
    for key in path[:-1]:
        target = target[key]
    if value is KeyError:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return data


def test_a_plan_survives_a_round_trip(tmp_path):
    plan = Plan.from_dict(GOOD)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    plan.to_dict()["model"]["layers"] = 7
    assert plan.model["layers"] == 2
    assert plan.layer("sparse", 0)[0] == Window(1, 1, 1)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format"], "other", "not a plan"),
        (["format_version"], 2, "reads plan format 1, got 2"),
        (["format_version"], True, "reads plan format 1"),
        (["model"], KeyError, "plan lacks model"),
        (["schedule"], KeyError, "plan lacks schedule"),
        (["extra"], 1, "unknown keys 'extra'"),
        (["model", "heads"], 0, "model.heads must be an integer from 1"),
        (["model", "heads"], True, "model.heads"),
        (["model", "layers"], "2", "model.layers"),
        (["model", "head_dim"], KeyError, "model lacks head_dim"),
        (["model", "transformer"], 3, "must be a class name"),
        (["model"], [], "model must be an object, got list"),
        (["patterns"], [], "patterns must be an object"),
        (["patterns", "near"], "window", "must be an object with a kind"),
        (["patterns", "near", "kind"], "spiral", "unknown kind 'spiral'; kinds are full"),
        (["patterns", "near", "depth"], 1, "unknown keys 'depth'"),
        (["patterns", "near", "frames"], -1, "from 0 to 1000000"),
        (["patterns", "near", "frames"], KeyError, "frames"),
        (["patterns", "near", "frames"], None, "integer"),
        (["patterns", "bad name"], {"kind": "full"}, "a name is 1 to 64"),
        (["assignments"], 3, "assignments must be an object"),
        (["assignments", "sparse"], {}, "must be a list of layers"),
        (["assignments", "sparse"], [["near", "band"]], "must have 2 layers, got 1"),
        (["assignments", "sparse", 0], ["near"], "layer 0, must have 2 heads, got 1"),
        (["assignments", "sparse", 1, 0], "far", "layer 1, uses unknown pattern 'far'"),
        (["assignments", "sparse", 1, 0], [], "uses unknown pattern"),
        (["assignments", "dense"], [["all", "all"]] * 2, "reserved for stock attention"),
        (["schedule"], {}, "schedule must be a list"),
        (["schedule"], [], "at least one phase"),
        (["schedule", 0, "from_noise_level"], 0.9, "must start at noise level 1.0"),
        (["schedule", 1, "from_noise_level"], 1.0, "from noisy to clean"),
        (["schedule", 1, "from_noise_level"], "x", "must be from 0 to 1"),
        (["schedule", 1, "assignment"], "far", "the plan has only dense, reuse, sparse"),
        (["schedule", 1, "assignment"], 4, "must be a name"),
        (["schedule", 1, "until"], 4, "unknown keys 'until'"),
        (["schedule", 1, "slopes"], 1.0, "slopes must be a list of numbers, got 1.0"),
        (["schedule", 1, "slopes"], None, "slopes must be a list of numbers, got None"),
        (["schedule", 1, "slopes"], [0.5], "slopes are for reused steps, got them for 'sparse'"),
        (["schedule", 0, "assignment"], "reuse", "the first phase cannot reuse a step"),
        (["assignments", "reuse"], [], "'reuse' is reserved for reused steps"),
        (["provenance"], "me", "provenance must be an object"),
    ],
)
def test_malformed_plans_say_what_is_wrong(path, value, message):
    with pytest.raises(PlanError, match=message):
        Plan.from_dict(edited(path, value))


def with_other_characters(rng):
    """The file with 1 to 5 characters replaced."""
    chars = list(json.dumps(GOOD))
    for _ in range(rng.randint(1, 5)):
        chars[rng.randrange(len(chars))] = rng.choice('{}[]",:0123456789.eE-\\ntf\x00é')
    return "".join(chars)


def paths(data, path=()):
    """Where every value of a JSON tree is, but for provenance, which may hold anything."""
    keys = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    for key in keys:
        if key != "provenance":
            yield (*path, key)
            yield from paths(data[key], (*path, key))


def with_another_value(rng):
    """The file with one value replaced or left out."""
    values = [KeyError, None, True, -1, 0, 3, 1e9, 0.5, "dense", "near", "", [], {}, [[]], {"a": 1}]
    return json.dumps(edited(rng.choice(list(paths(GOOD))), rng.choice(values)))


# Of 100 mutants, 99 with other characters and 91 to 96 with another value are refused.
@pytest.mark.parametrize(
    ("mutate", "floor"), [(with_other_characters, 95), (with_another_value, 90)]
)
@pytest.mark.parametrize("seed", range(5))
def test_mutated_files_are_refused_or_still_plans(mutate, floor, seed, tmp_path):
    rng = random.Random(seed)
    path = tmp_path / "plan.json"
    refused = 0
    for _ in range(100):
        path.write_text(mutate(rng))
        try:
            plan = Plan.load(path)
        except PlanError:
            refused += 1
        else:
            assert Plan.from_dict(plan.to_dict()) == plan
    assert refused >= floor


def test_unreadable_files_are_plan_errors(tmp_path):
    with pytest.raises(PlanError, match="No such file"):
        Plan.load(tmp_path / "none.json")
    big = tmp_path / "big.json"
    big.write_bytes(b" " * (16 * 2**20 + 1))
    with pytest.raises(PlanError, match="larger than 16 MiB"):
        Plan.load(big)
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000)
    with pytest.raises(PlanError, match="not JSON"):
        Plan.load(deep)


def test_a_plan_for_another_model_is_refused():
    plan = Plan.from_dict(GOOD)
    plan.check_model("WanTransformer3DModel", 2, 2, 16)
    with pytest.raises(PlanError, match="heads 2 != 12"):
        plan.check_model("WanTransformer3DModel", 2, 12, 16)


def test_the_schedule_follows_the_noise_level():
    schedule = Schedule((Phase(1.0, "dense"), Phase(0.7, "a"), Phase(0.2, "b")))
    noise_levels = [1.0, 0.71, 0.7, 0.5, 0.2, 0.0]
    assert [schedule.at(x) for x in noise_levels] == ["dense", "dense", "a", "a", "b", "b"]
