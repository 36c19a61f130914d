"""Whole searches: targets, interruptions, several processes."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ajour import Plan, sparse
from ajour.search import provenance
from ajour.search.bench import bench
from ajour.search.costs import Costs
from ajour.search.engine import Search
from ajour.search.verify import plan_key
from ajour.search.work import Work, WorkError
from ajour.search.workers import Workers
from tests.pipelines.conftest import HEADS, LATE, LAYERS, make_transformer, run
from tests.search.conftest import CANDIDATES, given_costs, run_search, settings, what_it_does


def test_a_plan_meets_its_speed_and_says_where_it_comes_from(plain, pipe, tmp_path):
    outcome, _ = plain
    facts, origin = outcome.facts, outcome.plan.provenance
    assert outcome.met
    assert origin["predicted"]["speedup"] >= 1.3
    assert origin["verified"]["psnr_db"] == pytest.approx(facts["chosen"]["psnr_db"], rel=1e-4)
    assert {"fingerprint", "device", "versions", "grid", "prompts", "seed", "call"} <= set(origin)
    assert 0 < facts["density"] < 1
    outcome.plan.save(tmp_path / "plan.json")
    with sparse(pipe, Plan.load(tmp_path / "plan.json"), strict=True):
        run(pipe, steps=4)


def test_baselines_are_no_slower_than_the_plan_by_more_than_the_margin(plain):
    facts = plain[0].facts
    assert facts["baselines"]
    for one in facts["baselines"]:
        assert one["seconds"] <= 1.02 * facts["chosen"]["seconds"]
        plan = Plan.from_dict(one["plan"])
        assert plan_key(plan) == one["key"]
        assert list(plan.patterns) == [one["name"]]


def test_density_is_kept(pipe, tmp_path):
    outcome = run_search(pipe, tmp_path / "w", settings("density", 0.6))
    assert 0.4 < outcome.facts["density"] <= 0.6 + 1e-9


def test_who_watches_sees_every_verified_plan(pipe, tmp_path):
    asked, seen = settings(), []
    work = Workers().open(tmp_path / "w", asked.to_dict(), False)
    outcome = Search(pipe, asked, work, Workers(), watch=seen.append).run()
    assert [len(progress.tried) for progress in seen] == list(range(len(seen)))
    facts = outcome.facts
    keys = {one["key"] for one in [*facts["tried"], *facts["baselines"]]}
    assert {one.found["key"] for one in seen[-1].tried} == keys
    best = next(one for one in seen[-1].tried if one.found["key"] == facts["chosen"]["key"])
    assert what_it_does(seen[-1].plan(best.choice)) == what_it_does(outcome.plan)


def test_plans_on_the_way_to_a_quality_are_not_timed_by_passes(pipe, tmp_path):
    facts = run_search(pipe, tmp_path / "w", settings("psnr", 54.0)).facts
    on_the_way = [one for one in facts["tried"] if one["key"] != facts["chosen"]["key"]]
    assert on_the_way
    for one in on_the_way:
        assert one["speedup"] == one["run_speedup"]
        assert "attention_seconds" not in one
    for one in [facts["chosen"], *facts["baselines"]]:
        assert "predicted_attention_seconds" in one
        assert one["attention_seconds"] > 0
        assert one["pass_seconds"]["dense"] > 0
    assert facts["chosen"] in facts["tried"]


def test_a_target_out_of_reach_is_missed_with_the_best(pipe, tmp_path):
    outcome = run_search(pipe, tmp_path / "w", settings("speedup", 50.0))
    assert not outcome.met
    assert outcome.plan.provenance["target_met"] is False


@pytest.mark.parametrize("most", [0, 10**6])  # errors up to which first heads are told apart
def test_the_problem_costs_what_the_cost_model_says(pipe, tmp_path, monkeypatch, most):
    monkeypatch.setattr("ajour.search.engine.MOST_SHARED", most)
    given = given_costs() | {"layer": 0.1, "pooling": 0.2, "first": 0.3}
    asked, workers = settings(costs=given), Workers()
    search = Search(pipe, asked, workers.open(tmp_path, asked.to_dict(), False), workers)
    costs, rng, count = Costs.from_dict(given), np.random.default_rng(0), len(CANDIDATES)
    found = {
        "errors": rng.random((2, LAYERS, HEADS, count)), "levels": [1.0, 0.9, 0.6, 0.3],
        "onset": [0.2, 0.1], "influence": rng.random((2, LAYERS)),
        "trial": rng.random((2, LAYERS)),
    }  # fmt: skip
    problem, _ = search._problems([found], costs)
    for _ in range(20):
        own = [rng.permutation(count)[:HEADS] for _ in range(2 * LAYERS)]  # all heads are first
        choice = np.array(own).reshape(2, LAYERS, HEADS)
        expected = sum(2 * (costs.other + costs.attention(picked)) for picked in choice)
        assert problem.seconds(choice) == pytest.approx(expected)
    alike = np.full((2, LAYERS, HEADS), costs.pooled.index(True))
    expected = sum(2 * (costs.other + costs.attention(picked)) for picked in alike)
    spent = problem.seconds(alike)
    assert spent == pytest.approx(expected) if most else spent > expected


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("after", [2, 5, 11])
def test_interrupted_and_resumed_gives_the_same_plan(plain, pipe, tmp_path, monkeypatch, after):
    put, done = Work.put, []

    def stop(self, key, value):
        if len(done) == after:
            with self._file.open("a") as file:
                file.write('["half a li')
            raise Interrupted
        done.append(key)
        put(self, key, value)

    monkeypatch.setattr(Work, "put", stop)
    with pytest.raises(Interrupted):
        run_search(pipe, tmp_path, settings())
    monkeypatch.setattr(Work, "put", put)
    assert "_ajour" not in pipe.__dict__
    outcome = run_search(pipe, tmp_path, settings(), resume=True)
    assert what_it_does(outcome.plan) == what_it_does(plain[0].plan)
    keys = [json.loads(line)[0] for line in (tmp_path / "work-0.jsonl").read_text().splitlines()]
    assert len(keys) == len(set(keys)), "a finished unit was computed again"


def test_another_device_other_weights_or_candidates_are_not_gone_on_with(
    plain, make_pipe, tmp_path, monkeypatch
):
    shutil.copytree(plain[1], tmp_path / "work")

    def go_on(pipe, **changes):
        work = Workers().open(tmp_path / "work", settings().to_dict(), True)
        Search(pipe, settings(), work, Workers(), **changes)

    go_on(make_pipe())
    with pytest.raises(WorkError, match="begun with another fingerprint: .* then, .* now"):
        go_on(make_pipe(transformer=make_transformer(seed=5)))
    with pytest.raises(WorkError, match=r"another candidates \(skip: .* then, None now\)"):
        go_on(make_pipe(), candidates={k: v for k, v in CANDIDATES.items() if k != "skip"})
    monkeypatch.setattr(provenance, "device_name", lambda _: "another GPU")
    with pytest.raises(WorkError, match="begun with another device: .* then, another GPU now"):
        go_on(make_pipe())


TWO = {"transformer": make_transformer(), "transformer_2": make_transformer(1)}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"unet": 1}, "Other has no transformer; supported transformers are"),
        (TWO, r"two transformers; .* handle one. A plan can be given to each: ajour.enable"),
        (TWO | {"transformer": None}, "has a transformer_2 but no transformer"),
    ],
    ids=["unet", "two", "second"],
)
def test_other_pipelines_are_refused_with_the_reason(tmp_path, parts, said):
    other = type("Other", (), parts)()
    work = Workers().open(tmp_path / "w", settings().to_dict(), False)
    with pytest.raises(TypeError, match=said):
        Search(other, settings(), work, Workers())
    with pytest.raises(TypeError, match=said):
        bench(other, LATE, ["a star"], 0, Workers(), None, {})


def test_two_processes_find_the_same_plan(plain, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("worker.py")
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path)],
            env={
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
                "RANK": str(rank), "PYTHONPATH": str(script.parents[2]), "HF_HUB_OFFLINE": "1",
                "GLOO_SOCKET_IFNAME": "lo",
            },
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    for rank in range(2):
        found = json.loads((tmp_path / f"plan-{rank}.json").read_text())
        assert what_it_does(Plan.from_dict(found)) == what_it_does(plain[0].plan)
    shared = [
        {
            json.loads(line)[0]
            for line in (tmp_path / f"work/work-{r}.jsonl").read_text().splitlines()
        }
        for r in range(2)
    ]
    assert "prompt/0/errors" in shared[0] - shared[1]
    assert "prompt/1/errors" in shared[1] - shared[0]
