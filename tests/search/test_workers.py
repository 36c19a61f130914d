"""Which device a process works on. What processes share is in test_engine."""

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
