"""A target of quality that no plan reaches faster than dense attention: dense is the answer."""

import json
from dataclasses import replace

from ajour.search import engine
from ajour.search.timing.costs import Costs
from tests.search.conftest import given_costs, run_search, settings
from tests.search.test_cli import folder, search

__all__ = ["folder"]


def slow_sparse():
    """Costs under which no sparse pass is faster than a dense pass."""
    costs = given_costs()
    return costs | {"other": 10 * costs["dense_pass"]}


def test_dense_is_the_answer_in_words_and_no_plan_is_written(folder, capsys):
    (folder / "costs.json").write_text(json.dumps(slow_sparse()))
    (folder / "plan.json").write_text("of an earlier search")
    words = ["--target-psnr", "50", "--no-reuse", "--force"]
    assert search(folder, *words) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "dense attention is the answer" in out
    assert "no plan of 50 dB is faster than dense attention" in out
    assert "no plan was written" in out
    assert "ajour.enable" not in out
    assert (folder / "plan.json").read_text() == "of an earlier search"
    assert json.loads((folder / "plan.figures.json").read_text())["dense_is_best"] is True
    page = (folder / "plan.html").read_text()
    assert "dense attention is the answer" in page
    assert "ajour.enable" not in page
    assert search(folder, *words, "--resume", "--json") == 0
    assert json.loads(capsys.readouterr().out)["dense_is_best"] is True


def test_a_plan_of_the_quality_that_is_measured_to_be_slower_is_not_recommended(
    pipe, tmp_path, monkeypatch
):
    timed = engine.time_plan
    monkeypatch.setattr(engine, "time_plan", lambda *given: replace(timed(*given), speedup=0.97))
    outcome = run_search(pipe, tmp_path / "w", settings("psnr", 20.0))
    assert outcome.chosen.psnr_db >= 20
    assert outcome.dense_is_best
    assert not outcome.met
    assert outcome.conclusion.startswith("dense attention is the answer")


def test_a_target_of_speed_is_missed_as_before(pipe, tmp_path):
    outcome = run_search(
        pipe, tmp_path / "w", settings("speedup", 50.0, costs=Costs.from_dict(slow_sparse()))
    )
    assert not outcome.dense_is_best
    assert not outcome.met
