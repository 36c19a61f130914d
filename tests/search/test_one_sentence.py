"""Whatever a user does, the command ends with one sentence and an exit code, never a traceback."""

import json
import os
import subprocess
import sys

import pytest

from ajour import Plan
from ajour.search import cli
from ajour.search.cli import main
from tests.pipelines.conftest import LATE


def said(capsys):
    """The message, which is a single line; libraries may have printed lines before it."""
    err = capsys.readouterr().err
    assert "Traceback" not in err
    *before, message, rest = err.split("\n")
    assert message.startswith("ajour ")
    assert not any(line.startswith("ajour ") for line in before)
    assert not rest
    return message


def failing(error):
    def add(commands):
        commands.add_parser("generate").set_defaults(run=run)

    def run(_args):
        raise error

    return add


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OverflowError("int too large"), "OverflowError: int too large"),
        (MemoryError(), "not enough memory"),
        (MemoryError("Unable to allocate 7 EiB"), "not enough memory: Unable to allocate 7 EiB"),
        (KeyError("grid"), "KeyError: 'grid'"),
        (IndexError("list index out of range"), "IndexError: list index"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError"),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError: maximum"),
        (AttributeError("no such thing"), "AttributeError: no such thing"),
        (EOFError(), "EOFError"),
        (ValueError("two\n\n  lines"), "two lines"),
        (RuntimeError("x" * 5000), "xxx"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"), "surrogates"),
        (ValueError("half a pair: \ud800"), "half a pair"),
        (OSError(28, "No space left on device", "plan.json"), "No space left on device"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_failure_is_one_sentence(error, message, monkeypatch, capsys):
    monkeypatch.setattr(cli, "ADD_COMMANDS", (failing(error),))
    assert main(["generate"]) == 1
    err = said(capsys)
    assert err.startswith("ajour generate: ")
    assert message in err
    assert len(err) < 1200


def test_where_a_failure_is_can_be_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(cli, "ADD_COMMANDS", (failing(KeyError("grid")),))
    monkeypatch.setenv("AJOUR_TRACEBACK", "1")
    assert main(["generate"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("ajour generate: KeyError: 'grid'\n")


def test_a_closed_pipe_is_no_traceback(tmp_path):
    command = f"{sys.executable} -m ajour.search.cli doctor | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("1000000x1000000x1000000", "each from 1 to 999999"),
        ("0x1x1", "each from 1 to 999999"),
        ("999999x999999x999999", "at most 2147483647 tokens"),
    ],
)
def test_a_grid_that_cannot_be_is_bad_usage(grid, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["inspect", "--grid", grid])
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_grid_too_large_to_draw_is_said(tmp_path, capsys):
    words = ["inspect", "--grid", "500x1000x1000", "--out", str(tmp_path / "plan.png")]
    assert main(words) == 1
    assert "a grid of up to 1000000 tokens can be drawn, got 500000000" in said(capsys)


def test_a_file_that_cannot_be_drawn_to_is_named(tmp_path, capsys):
    (tmp_path / "folder.png").mkdir()
    assert main(["inspect", "--grid", "3x8x8", "--out", str(tmp_path / "folder.png")]) == 2
    assert str(tmp_path) in said(capsys)
    (tmp_path / "file").write_text("")
    assert main(["inspect", "--grid", "3x8x8", "--out", str(tmp_path / "file" / "a.png")]) == 2
    assert str(tmp_path / "file") in said(capsys)


NUMBERS = [
    ["generate", "--steps", "9" * 30],
    ["generate", "--steps", "9" * 5000],
    ["generate", "--frames", "10000000"],
    ["generate", "--height", "1e3"],
    ["generate", "--fps", "1000001"],
    ["generate", "--guidance", "nan"],
    ["generate", "--guidance", "inf"],
    ["generate", "--density", "nan"],
    ["generate", "--seed", "9" * 30],
    ["generate", "--seed", "-1"],
    ["search", "mini", "--target-mean-density", "nan"],
    ["search", "mini", "--target-psnr", "inf"],
    ["search", "mini", "--target-mean-density", "0.5", "--bands", "9999999"],
    ["bench", "plan.json", "--seed", "x"],
    ["demo", "--port", "99999999"],
    ["demo", "--port", "0"],
]


@pytest.mark.parametrize("words", NUMBERS, ids=lambda words: " ".join(words)[:40])
def test_numbers_out_of_range_are_bad_usage(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert f"argument {words[-2]}: " in err
    assert len(err) < 4000


MISSING = "No such file or directory; give a plan file or a Hub repository"
NO_NAME = "no file can have this name"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["inspect", "./none.json"], 1, MISSING),
        (["inspect", "out/plan.json"], 1, MISSING),
        (["inspect", "none\0.json"], 1, NO_NAME),
        (["inspect", "\ud800.json"], 1, ""),
        (["inspect", "x" * 5000], 1, "File name too long"),
        (["bench", "none\0.json"], 1, NO_NAME),
        (["bench", "."], 1, "it is a folder; name the plan file in it"),
        (["generate", "--plan", "../none/plan.json"], 1, MISSING),
        (["search", "none\0", "--target-mean-density", "0.5", "--out", "{}/plan.json"], 1, ""),
        (["search", "mini", "--target-mean-density", "0.5", "--out", "{}/p\0.json"], 2, ""),
        (["search", "mini", "--target-mean-density", "0.5", "--out", "{}/" + "x" * 400], 2, ""),
        (["search", "mini", "--target-mean-density", "0.5", "--prompts", "a\0b"], 1, ""),
        (["search", "mini", "--target-mean-density", "0.5", "--costs", "a\0b"], 1, ""),
        (["generate", "--model", "x" * 300], 1, ""),
        (["generate", "--model", "./none"], 1, ""),
        (["generate", "--device", "nowhere"], 2, ""),
        (["demo", "--plan", "./none.json"], 1, MISSING),
        (["demo", "--host", "no.such.host.invalid"], 1, "cannot listen on no.such.host.invalid"),
    ],
    ids=lambda value: ascii(" ".join(value))[:50] if isinstance(value, list) else "",
)
def test_odd_names_are_one_sentence(words, code, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = ["--out", str(tmp_path / "out")] if words[0] == "generate" else []
    assert main([word.format(tmp_path) for word in words] + out) == code
    err = said(capsys)
    err.encode()
    assert message in err
    assert len(err) < 1000


def of_model(folder, model):
    data = LATE.to_dict() | {"provenance": {"model": model}}
    (folder / "plan.json").write_text(json.dumps(data))
    return str(folder / "plan.json")


@pytest.mark.parametrize("model", ["someone/model", "/some/folder", "mini/..", "x" * 5000, 7, None])
def test_bench_loads_no_model_that_only_the_plan_names(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "ajour.pipelines.bundled.load_pipeline", lambda *_: pytest.fail("a model was loaded")
    )
    assert main(["bench", of_model(tmp_path, model), "--out", str(tmp_path / "b.json")]) == 1
    err = said(capsys)
    assert "--model" in err
    assert len(err) < 600
    if model == "someone/model":
        assert "was searched on the model 'someone/model'" in err
        assert "give --model 'someone/model' if you trust it" in err


def test_bench_loads_the_bundled_model_by_itself(tmp_path, monkeypatch, capsys):
    loaded = []

    def load(path, *_):
        loaded.append(path)
        raise RuntimeError("enough")

    monkeypatch.setattr("ajour.pipelines.bundled.load_pipeline", load)
    assert main(["bench", of_model(tmp_path, "mini"), "--out", str(tmp_path / "b.json")]) == 1
    assert loaded == [None]
    assert "enough" in said(capsys)


def test_only_safetensors_are_loaded(make_pipe, tmp_path, capsys):
    make_pipe().save_pretrained(tmp_path / "model", safe_serialization=False)
    words = ["generate", "--model", str(tmp_path / "model"), "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 1
    assert "safetensors" in said(capsys)


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*plan.json'"):
        LATE.save(tmp_path / "plan.json")
    monkeypatch.undo()
    LATE.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == LATE
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
