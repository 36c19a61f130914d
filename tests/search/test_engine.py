"""Whole searches: targets, interruptions, several processes."""

import json
import shutil

import pytest
import torch

from ajour import Plan, sparse
from ajour.pipelines.enable import is_enabled
from ajour.search import provenance
from ajour.search.engine import Search
from ajour.search.setup import Setup
from ajour.search.verify.runs import plan_key
from ajour.search.work import Work, WorkError
from ajour.search.workers import Workers
from tests.pipelines.conftest import make_transformer, run
from tests.search.conftest import (
    CANDIDATES,
    plans_of_two_processes,
    run_search,
    settings,
    what_it_does,
)


def test_a_plan_meets_its_speed_and_says_where_it_comes_from(plain, pipe, tmp_path):
    outcome, _ = plain
    origin = outcome.plan.provenance
    assert outcome.met
    assert origin["predicted"]["speedup"] >= 1.3
    assert origin["verified"]["psnr_db"] == pytest.approx(outcome.chosen.psnr_db, rel=1e-4)
    assert {"fingerprint", "device", "versions", "grid", "prompts", "seed", "call"} <= set(origin)
    assert 0 < outcome.density < 1
    outcome.plan.save(tmp_path / "plan.json")
    with sparse(pipe, Plan.load(tmp_path / "plan.json"), strict=True):
        run(pipe, steps=4)


def test_baselines_are_no_slower_than_the_plan_by_more_than_the_margin(plain):
    outcome, _ = plain
    assert outcome.baselines
    for baseline in outcome.baselines:
        assert baseline.seconds <= 1.02 * outcome.chosen.seconds
        assert plan_key(baseline.plan) == baseline.key
        assert list(baseline.plan.patterns) == [baseline.name]


def test_the_figures_file_has_all_plans(plain):
    outcome, _ = plain
    data = json.loads(json.dumps(outcome.to_dict()))
    assert data["chosen"] in data["verified"]
    assert data["chosen"]["psnr_db"] == outcome.chosen.psnr_db
    assert {"perceptual", "banding", "flicker"} <= set(data["chosen"])
    assert set(data["measures"]) <= set(data["chosen"])
    assert data["measures"]["perceptual"]["meaning"]
    assert [Plan.from_dict(row["plan"]) for row in data["baselines"]] == [
        baseline.plan for baseline in outcome.baselines
    ]


def test_density_is_kept(pipe, tmp_path):
    outcome = run_search(pipe, tmp_path / "w", settings("density", 0.6))
    assert 0.4 < outcome.density <= 0.6 + 1e-9


def test_progress_has_every_verified_plan(pipe, tmp_path):
    asked, seen = settings(), []
    work = Workers().open(tmp_path / "w", asked.to_dict(), False)
    outcome = Search(pipe, asked, work, Workers(), on_progress=seen.append).run()
    assert [len(progress.verified) for progress in seen] == list(range(len(seen)))
    plans = [*outcome.verified, *outcome.baselines]
    assert {plan.key for plan in seen[-1].verified} == {plan.key for plan in plans}
    best = next(plan for plan in seen[-1].verified if plan.key == outcome.chosen.key)
    assert what_it_does(best.plan) == what_it_does(outcome.plan)


def test_plans_on_the_way_to_a_quality_are_not_timed_by_passes(pipe, tmp_path):
    outcome = run_search(pipe, tmp_path / "w", settings("psnr", 54.0))
    assert outcome.rejected
    for plan in outcome.rejected:
        assert plan.times is None
        assert plan.speedup == plan.quality.run_speedup
        assert "attention_seconds" not in plan.to_dict()
    for plan in [outcome.chosen, *outcome.baselines]:
        assert plan.predicted_attention_seconds is not None
        assert plan.times.attention_seconds > 0
        assert plan.times.pass_seconds["dense"] > 0
    assert outcome.chosen in outcome.verified


def test_a_target_out_of_reach_is_missed_with_the_best(pipe, tmp_path):
    outcome = run_search(pipe, tmp_path / "w", settings("speedup", 50.0))
    assert not outcome.met
    assert outcome.plan.provenance["target_met"] is False


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("after", [2, pytest.param(5, marks=pytest.mark.slow), 11])
def test_interrupted_and_resumed_gives_the_same_plan(plain, pipe, tmp_path, monkeypatch, after):
    put, done = Work.put, []

    def stop(self, key, value):
        if len(done) == after:
            with (self.folder / "work-0.jsonl").open("a") as file:
                file.write('["half a li')
            raise Interrupted
        done.append(key)
        put(self, key, value)

    monkeypatch.setattr(Work, "put", stop)
    with pytest.raises(Interrupted):
        run_search(pipe, tmp_path, settings())
    monkeypatch.setattr(Work, "put", put)
    assert not is_enabled(pipe)
    outcome = run_search(pipe, tmp_path, settings(), resume=True)
    assert what_it_does(outcome.plan) == what_it_does(plain[0].plan)
    keys = [json.loads(line)[0] for line in (tmp_path / "work-0.jsonl").read_text().splitlines()]
    assert len(keys) == len(set(keys)), "a finished unit was computed again"


def test_another_device_other_weights_or_candidates_are_not_resumed(
    plain, make_pipe, tmp_path, monkeypatch
):
    shutil.copytree(plain[1], tmp_path / "work")

    def resume(pipe, **changes):
        work = Workers().open(tmp_path / "work", settings().to_dict(), True)
        Search(pipe, settings(), work, Workers(), **changes)

    resume(make_pipe())
    with pytest.raises(WorkError, match="begun with another fingerprint: .* then, .* now"):
        resume(make_pipe(transformer=make_transformer(seed=5)))
    with pytest.raises(WorkError, match=r"another candidates \(skip: .* then, None now\)"):
        resume(make_pipe(), candidates={k: v for k, v in CANDIDATES.items() if k != "skip"})
    monkeypatch.setattr(provenance, "device_name", lambda _: "another GPU")
    with pytest.raises(WorkError, match="begun with another device: .* then, another GPU now"):
        resume(make_pipe())


TWO = {"transformer": make_transformer(), "transformer_2": make_transformer(1)}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"unet": 1}, "Other has no transformer; supported transformers are"),
        (TWO | {"transformer": None}, "has transformer_2; .* pipelines with a transformer"),
        (
            {"transformer": make_transformer(), "transformer_ref": make_transformer()},
            "has transformer and transformer_ref; .* a transformer_2 that takes over",
        ),
        (
            TWO | {"transformer_2": make_transformer(num_layers=3)},
            r"two transformers of Other differ: layers 2 != 3 .* ajour.enable\(pipe.transformer",
        ),
        (
            TWO | {"transformer_2": make_transformer().to(torch.bfloat16)},
            "differ: dtype 'float32' != 'bfloat16'",
        ),
    ],
    ids=["unet", "second", "reference", "layers", "dtype"],
)
def test_other_pipelines_are_refused_with_the_reason(tmp_path, parts, said):
    other = type("Other", (), {})()
    vars(other).update(parts)
    work = Workers().open(tmp_path / "w", settings().to_dict(), False)
    with pytest.raises(TypeError, match=said):
        Search(other, settings(), work, Workers())
    with pytest.raises(TypeError, match=said):
        Setup(other)


def test_two_processes_find_the_same_plan(plain, tmp_path):
    for plan in plans_of_two_processes(tmp_path, "one_transformer"):
        assert what_it_does(plan) == what_it_does(plain[0].plan)
    shared = [
        {
            json.loads(line)[0]
            for line in (tmp_path / f"work/work-{r}.jsonl").read_text().splitlines()
        }
        for r in range(2)
    ]
    assert "prompt/0/errors" in shared[0] - shared[1]
    assert "prompt/1/errors" in shared[1] - shared[0]
