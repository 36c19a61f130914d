"""Plans by path or repository; the Hub itself is stood in for."""

import json
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

import ajour
from ajour import Plan, PlanError
from ajour.pipelines.hub import load_plan, push_plan
from ajour.pipelines.session import session_of
from tests.pipelines.conftest import SPARSE


def test_a_repository_is_fetched(pipe, tmp_path, monkeypatch):
    SPARSE.save(tmp_path / "plan.json")
    asked = []

    def download(repository, name, revision=None):
        asked.append((repository, name, revision))
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert load_plan("someone/wan-plan", revision="v1") == SPARSE
    assert asked == [("someone/wan-plan", "plan.json", "v1")]
    with ajour.sparse(pipe, "someone/wan-plan"):
        assert session_of(pipe).runtimes[0].plan == SPARSE


def test_a_file_comes_before_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plans").mkdir()
    SPARSE.save("plans/wan")
    assert load_plan("plans/wan") == SPARSE


def test_what_cannot_be_fetched_is_a_plan_error(monkeypatch):
    def download(*_args, **_kwargs):
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(PlanError, match=r"no plan at 'someone/none'.*offline"):
        load_plan("someone/none")
    with pytest.raises(PlanError, match="cannot read plan 'not/a/repository.json'"):
        load_plan("not/a/repository.json")


def test_a_plan_is_pushed(monkeypatch):
    seen = {}

    class Api:
        def create_repo(self, repository, **options):
            seen["repository"] = (repository, options)

        def upload_file(self, *, path_or_fileobj, **options):
            seen["plan"] = json.loads(path_or_fileobj.read_text())
            seen["options"] = options
            return SimpleNamespace(commit_url="https://hub/commit/1")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert push_plan(SPARSE, "someone/wan-plan", private=True) == "https://hub/commit/1"
    assert seen["repository"] == ("someone/wan-plan", {"private": True, "exist_ok": True})
    assert Plan.from_dict(seen["plan"]) == SPARSE
    assert seen["options"]["path_in_repo"] == "plan.json"
