"""An uploaded plan cannot make the page draw without bound."""

import json
from dataclasses import replace

import pytest

from ajour import Full, Phase, Plan, Schedule, Skip, TokenGrid, Window
from ajour.demo import heads
from ajour.demo.app import build
from ajour.demo.errors import MOST_MEASURED, measure
from ajour.demo.heads import MOST_TOKENS, ShownPlan
from ajour.demo.run import captured_maps
from ajour.pipelines.enable import enable
from ajour.pipelines.generate import sample
from ajour.pipelines.summary import summary
from tests.demo.conftest import REQUEST, finish
from tests.demo.visitor import Visitor
from tests.pipelines.conftest import LATE, make_plan

pytestmark = pytest.mark.xdist_group("demo-server")

UNUSED = Window(1, 1, 2)


@pytest.fixture
def lowered(monkeypatch):
    """The (pattern, grid) of every lowering; grids that are too large are not lowered."""
    from ajour import lowering

    seen, real = [], lowering.level_map

    def level_map(pattern, grid):
        seen.append((pattern, grid))
        assert grid.video_tokens <= MOST_TOKENS
        return real(pattern, grid)

    monkeypatch.setattr("ajour.lowering.level_map", level_map)
    monkeypatch.setattr("ajour.pipelines.drawing.level_map", level_map)
    lowering.density.cache_clear()
    return seen


def with_unused(plan, assignments=1):
    """A plan with assignments that its schedule does not use."""
    rows = (("unused",) * plan.model["heads"],) * plan.model["layers"]
    return replace(
        plan,
        patterns=plan.patterns | {"unused": UNUSED},
        assignments=plan.assignments | {f"unused{i}": rows for i in range(assignments)},
    )


def many_patterns(layers, heads, count):
    patterns = {f"p{i}": Window(i, 1, 1) for i in range(count)}
    names = list(patterns)
    rows = tuple(
        tuple(names[(layer * heads + head) % count] for head in range(heads))
        for layer in range(layers)
    )
    model = {"transformer": "X", "layers": layers, "heads": heads, "head_dim": 8}
    return Plan(model, patterns, {"a": rows}, Schedule((Phase(1.0, "a"),)))


@pytest.mark.parametrize("grid", ["40x300x300", "2000x2000x2000", "1x1x100000", "no grid", 7])
def test_a_grid_too_large_is_not_drawn_and_the_page_says_so(server, lowered, grid):
    plan = json.dumps(replace(LATE, provenance={"grid": grid}).to_dict())
    with Visitor(server[0]) as visitor:
        said = visitor.upload("large.json", plan, colour="density")
    assert "large.json is a valid plan" in said
    assert f"The plan names the grid {grid}, which is too large to draw or no grid" in said
    assert {grid.shape for _, grid in lowered} == {heads.DEFAULT_GRID.shape}


def test_no_view_is_drawn_on_a_larger_grid(lowered):
    shown = ShownPlan(LATE, "a measurement", TokenGrid(40, 300, 300))
    assert "too large to draw" in heads.map_page(shown, "sparse", "density")
    with pytest.raises(ValueError, match="too large to draw"):
        heads.head_page(shown, "sparse", 0, 0)
    assert lowered == []
    assert "layer 1, head 1" in heads.map_page(shown, "sparse", "kind")


def test_many_patterns_are_not_lowered_for_a_map(lowered):
    shown = ShownPlan.of(many_patterns(64, 64, 1000), "many", "21x45x80")
    assert "1000 patterns are too many to lower" in heads.map_page(shown, "a", "density")
    assert lowered == []
    assert "<td>" in heads.map_page(shown, "a", "kind")


def test_only_assignments_in_use_are_offered(server):
    with Visitor(server[0]) as visitor:
        said = visitor.upload("spare.json", json.dumps(with_unused(LATE, 3).to_dict()))
    assert '"sparse"' in said
    assert "unused0" not in said


def test_long_schedules_are_not_drawn():
    phases = tuple(Phase(1 - i / 1000, "sparse" if i % 2 else "dense") for i in range(1000))
    text = heads.schedule_page(replace(LATE, schedule=Schedule(phases)))
    assert "1000 phases are too many to draw" in text
    assert len(text) < 1000


def test_only_patterns_in_use_are_measured(site, monkeypatch):
    from ajour.demo import errors

    seen = []
    real = errors.ErrorMeter
    monkeypatch.setattr(errors, "ErrorMeter", lambda s, c, **o: seen.extend(c) or real(s, c, **o))
    shown = ShownPlan.of(with_unused(LATE), "spare")
    job = site.device.submit("me", lambda pipe, job: measure(pipe, job, shown, REQUEST, site.model))
    finish(job)
    assert job.error == ""
    assert UNUSED not in seen
    assert set(job.result.errors) == {"sparse"}


def test_many_patterns_are_not_measured(pipe, site):
    plan = make_plan([Full(), Skip()])
    names = {f"p{i}": Window(i, 1, 1) for i in range(MOST_MEASURED + 1)}
    phases, rows = [], {}
    for i, name in enumerate(names):
        rows[name] = ((name,) * plan.model["heads"],) * plan.model["layers"]
        phases.append(Phase(1 - i / 100, name))
    plan = replace(plan, patterns=names, assignments=rows, schedule=Schedule(tuple(phases)))
    with pytest.raises(ValueError, match=f"at most {MOST_MEASURED} patterns"):
        measure(pipe, None, ShownPlan.of(plan, "many"), REQUEST, site.model)


def test_a_measurement_stops_between_layers(site, monkeypatch):
    from ajour.demo.errors import ErrorMeter

    layers = []

    def meter(self, layer, *_):
        layers.append(layer)
        job.stop()

    monkeypatch.setattr(ErrorMeter, "__call__", meter)
    shown = ShownPlan.of(LATE, "plan")
    job = site.device.submit("me", lambda pipe, job: measure(pipe, job, shown, REQUEST, site.model))
    finish(job)
    assert job.state == "stopped"
    assert len(layers) == 1


def test_a_summary_lowers_what_the_schedule_uses(pipe, lowered):
    enable(pipe, with_unused(LATE, 5))
    sample(pipe, "a red circle", 0, "sparse", None, height=96, width=96, num_frames=5,
           num_inference_steps=3)  # fmt: skip
    rows = summary(pipe).layers
    assert {row.assignment for row in rows if row.density is None} == {
        f"unused{i}" for i in range(5)
    }
    assert all(row.density for row in rows if row.assignment == "sparse")
    assert UNUSED not in {pattern for pattern, _ in lowered}
    assert captured_maps(pipe) == {}


def test_every_event_waits_in_a_queue(server, site):
    drawing = [fn for fn in build(site).fns.values() if fn.concurrency_id == "drawing"]
    assert {fn.concurrency_limit for fn in drawing} == {2}
    assert {fn.name for fn in drawing} == {
        "found_look", "found_use", "look", "map_page", "phase", "updates", "upload",
    }  # fmt: skip
    with Visitor(server[0]) as visitor:
        assert all(
            event["queue"] for event in visitor.config["dependencies"] if event["backend_fn"]
        )
