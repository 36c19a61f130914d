"""Which device a process works on, and what it announces. What is shared is in test_engine."""

from contextlib import closing

import pytest
import torch

from ajour.search.workers import Workers


@pytest.fixture
def current(monkeypatch):
    """The GPUs that were made current, on a host that seems to have some."""
    calls = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setenv("LOCAL_RANK", "3")
    return calls


@pytest.mark.parametrize("asked", [None, "cuda"])
def test_each_launched_process_has_a_gpu_of_its_own(current, asked):
    assert Workers(7, 8).place(asked) == "cuda:3"
    assert current == ["cuda:3"]


@pytest.mark.parametrize(
    ("count", "asked", "made"),
    [(1, None, []), (1, "cuda", []), (1, "cuda:1", ["cuda:1"]), (8, "cuda:1", ["cuda:1"]),
     (8, "cpu", []), (1, "cpu", [])],
)  # fmt: skip
def test_what_is_asked_for_is_kept(current, count, asked, made):
    assert Workers(count - 1, count).place(asked) == asked
    assert current == made


@pytest.mark.parametrize("asked", [None, "cpu"])
def test_without_a_gpu_none_is_touched(current, monkeypatch, asked):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Workers(1, 2).place(asked) == asked
    assert current == []


def test_each_unit_is_announced_before_it_runs_and_finished_units_are_not(tmp_path):
    said = []
    workers = Workers(say=said.append)
    with closing(workers.open(tmp_path / "work", {}, False)) as work:
        work.put("prompt/1", 1)
        workers.share(work, "prompt", 3, lambda number, tick: said.append(number) or number)
        workers.first_only(work, "costs", lambda: 7)
        workers.first_only(work, "costs", lambda: 8)
        workers.first_only(work, "plan/0/passes", lambda: 9)
    assert said == [
        "calibrating on a prompt, 1 of 2", 0,
        "calibrating on a prompt, 2 of 2", 2,
        "timing layers and passes",
        "timing the passes of a plan",
    ]  # fmt: skip
