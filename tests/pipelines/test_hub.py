"""Plans by path or repository; the Hub itself is stood in for."""

import json
from pathlib import Path
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

    def download(repository, name, *, revision=None, dry_run=False):
        asked.append((repository, name, revision))
        return SimpleNamespace(file_size=1000) if dry_run else str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert load_plan("someone/wan-plan", revision="v1") == SPARSE
    assert asked == [("someone/wan-plan", "plan.json", "v1")] * 2
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


@pytest.fixture
def hub(monkeypatch):
    """A fake of the Hub: what `hf_hub_download` was asked for, and the size that it says."""
    fake = SimpleNamespace(asked=[], size=100, file=None, error=None)

    def download(repository, name, *, revision=None, dry_run=False):
        fake.asked.append("size" if dry_run else "file")
        if fake.error is not None:
            raise fake.error
        return SimpleNamespace(file_size=fake.size) if dry_run else fake.file

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return fake


def test_a_repository_obeys_the_size_limit_before_it_is_downloaded(hub):
    hub.size = 16 * 2**20 + 1
    with pytest.raises(PlanError, match="'someone/big' is larger than 16 MiB"):
        load_plan("someone/big")
    assert hub.asked == ["size"]


NO_REPOSITORIES = [
    "./plan.json", "../plan.json", "out/plan.json", "plan.json", "~/plan.json", "plans/wan.JSON",
    "/no/plan", "./plan", "../plan", "out/", "a//b", "a/b/c", "-a/b", "a/..", "a/x.git", "a/b--c",
    "plan\0.json", "\ud800/b", "é/b", "x" * 5000, "x" * 300 + "/y", "a/b\n", " a/b", "",
]  # fmt: skip


@pytest.mark.parametrize("source", NO_REPOSITORIES, ids=lambda source: ascii(source)[:20])
def test_paths_as_people_type_them_are_not_looked_up_on_the_hub(source, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PlanError, match="cannot read plan") as refusal:
        load_plan(source)
    assert not hub.asked
    assert len(str(refusal.value)) < 400
    str(refusal.value).encode()


def test_a_path_object_is_never_a_repository(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PlanError, match=r"cannot read plan 'plans/wan': No such file"):
        load_plan(Path("plans/wan"))
    assert not hub.asked


def test_a_folder_is_said_to_be_one(hub, tmp_path):
    with pytest.raises(PlanError, match="is a folder; name the plan file in it"):
        load_plan(tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        huggingface_hub.errors.HFValidationError("bad name"),
        ConnectionError("no network"),
        LocalEntryNotFoundError("offline\n\nset the token " + "x" * 2000),
    ],
)
def test_whatever_the_hub_says_is_a_short_plan_error(error, hub):
    hub.error = error
    with pytest.raises(PlanError, match="no plan at 'someone/none'") as refusal:
        load_plan("someone/none")
    assert len(str(refusal.value)) < 400
    assert "\n" not in str(refusal.value)


def test_a_missing_file_says_what_can_be_given(hub):
    with pytest.raises(PlanError, match=r"No such file.*give a plan file or a Hub repository"):
        load_plan("./plan.json")
