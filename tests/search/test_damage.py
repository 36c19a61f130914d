"""A search's folder after a crash, a full disk, an edit by hand, or under two searches at once."""

import errno
import json
import os
import shutil
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

from ajour.search.engine import Search
from ajour.search.verify.runs import Verifier
from ajour.search.work import Work, WorkError
from ajour.search.workers import Workers
from tests.search.conftest import run_search, settings

FOR = {"model": "tiny", "seed": 0}


def full_disk(*_args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_two_searches_in_one_folder_say_so(tmp_path):
    with closing(Workers().open(tmp_path, FOR, False)) as work:
        work.put("a", 1)
        before = (tmp_path / "work-0.jsonl").read_bytes()
        with pytest.raises(WorkError, match=r"another search is at work in .*; wait .*--out"):
            Workers().open(tmp_path, FOR, True)
        other = (
            "from pathlib import Path; from ajour.search.workers import Workers; "
            f"Workers().open(Path({str(tmp_path)!r}), {FOR!r}, True)"
        )
        done = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True)
        assert "another search is at work" in done.stderr
        assert (tmp_path / "work-0.jsonl").read_bytes() == before
        # A process of the same search, with its own number, is let in.
        assert Work(tmp_path, FOR, resume=True, rank=1).done["a"] == 1
    with closing(Workers().open(tmp_path, FOR, True)) as again:
        assert again.done["a"] == 1


def test_a_search_that_ended_badly_leaves_no_lock(tmp_path):
    code = (
        "import os; from pathlib import Path; from ajour.search.workers import Workers; "
        f"work = Workers().open(Path({str(tmp_path)!r}), {FOR!r}, False); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    Workers().open(tmp_path, FOR, True).close()


def test_a_refused_start_leaves_no_lock(tmp_path):
    Workers().open(tmp_path, FOR, False).close()
    for _ in range(2):
        with pytest.raises(WorkError, match="holds the work of an earlier search"):
            Workers().open(tmp_path, FOR, False)
    Workers().open(tmp_path, FOR, True).close()


def test_a_full_disk_names_the_file_and_the_reason(tmp_path, monkeypatch):
    work = Work(tmp_path, FOR)
    work.put("a", 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match=r"No space left on device.*work-0\.jsonl"):
            work.put("b", 2)
    assert "b" not in work.done
    work.put("c", 3)  # the unit that did not fit leaves no half of a line
    assert [json.loads(line)[0] for line in work.file.read_text().splitlines()] == [
        "identity",
        "a",
        "c",
    ]


def test_a_number_that_is_not_finite_is_no_work(tmp_path):
    work = Work(tmp_path, FOR)
    with pytest.raises(WorkError, match=r"'psnr'.*not finite: nan"):
        work.put("psnr", {"each": [1.0, float("nan")]})
    assert "NaN" not in work.file.read_text()


@pytest.mark.parametrize(
    "line",
    [b'["a", NaN]', b'["a", 1e999]', b"[" * 50_000, b'["a", ' + b"[" * 90 + b"]" * 90 + b"]"],
)
def test_more_damaged_lines_are_refused(tmp_path, line):
    work = Work(tmp_path, FOR)
    work.file.write_bytes(work.file.read_bytes() + line + b"\n")
    with pytest.raises(WorkError, match=r"work-0\.jsonl, line 2, is damaged"):
        Work(tmp_path, FOR, resume=True)


def test_an_identity_that_is_no_object_is_damage(tmp_path):
    (tmp_path / "work-0.jsonl").write_text('["identity", [1]]\n')
    with pytest.raises(WorkError, match=r"work-0\.jsonl, line 1, is damaged"):
        Work(tmp_path, FOR, resume=True)


def edit(folder, key, change):
    """Change the value of a unit; its line number."""
    file = folder / "work-0.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    number = next(i for i, (name, _) in enumerate(lines, 1) if name.startswith(key))
    lines[number - 1][1] = change(lines[number - 1][1])
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return number


def without(name):
    return lambda value: {key: part for key, part in value.items() if key != name}


DAMAGE = {
    "probe lacks the grid": ("probe", without("grid")),
    "probe has text": ("probe", lambda value: value | {"passes": "one"}),
    "probe has no steps": ("probe", lambda value: value | {"noise_levels": []}),
    "probe has a wrong grid": ("probe", lambda v: v | {"grid": {"frames": 3}}),
    "calibration is a list": ("prompt/0", lambda value: [1, 2]),
    "calibration lacks errors": ("prompt/0", without("errors")),
    "calibration has more": ("prompt/0", lambda value: value | {"more": []}),
    "errors are cut": ("prompt/0", lambda value: value | {"errors": value["errors"][:1]}),
    "errors are ragged": ("prompt/0", lambda value: value | {"errors": [[1], [2, 3]]}),
    "onset is text": ("prompt/0", lambda value: value | {"onset": ["a", "b"]}),
    "influence is null": ("prompt/0", lambda value: value | {"influence": None}),
    "dense lacks seconds": ("dense/0", without("seconds")),
    "dense is null": ("dense/0", lambda value: None),
    "quality lacks psnr": ("plan/", without("psnr_db")),
    "quality is text": ("plan/", lambda value: value | {"ssim": "good"}),
    "origin is a number": ("identity/origin", lambda value: 7),
}


@pytest.fixture(scope="module")
def finished(plain):
    return plain[1]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_unit_of_another_form_is_refused_with_its_line(damage, finished, pipe, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(finished, folder)
    key, change = DAMAGE[damage]
    file = folder / "work-0.jsonl"
    parts = [line for line in file.read_text().splitlines() if not line.startswith('["prompt/0/')]
    file.write_text("\n".join(parts) + "\n")
    number = edit(folder, key, change)
    with pytest.raises(WorkError, match=rf"work-0\.jsonl, line {number}, is damaged.*delete"):
        run_search(pipe, folder, settings(), resume=True)


def test_a_part_of_a_calibration_of_another_form_is_refused(finished, pipe, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(finished, folder)
    file = folder / "work-0.jsonl"
    lines = file.read_text().splitlines()
    kept = [line for line in lines if json.loads(line)[0] != "prompt/0"]
    file.write_text("\n".join(kept) + "\n")
    number = edit(folder, "prompt/0/errors", lambda value: value[:1])
    with pytest.raises(WorkError, match=rf"line {number}, is damaged"):
        run_search(pipe, folder, settings(), resume=True)


def damage_video(video, damage):
    whole = video.read_bytes()
    if damage == "other":
        np.save(video, np.array([{"a": 1}], dtype=object))
    elif damage == "shape":
        np.save(video, np.zeros((2, 3, 4, 3), np.uint8))
    else:
        raw = {"empty": b"", "text": b"PK no video", "cut": whole[: len(whole) // 2]}
        video.write_bytes(raw[damage])


def test_damaged_videos_are_made_again(plain, pipe, tmp_path):
    outcome, finished = plain
    folder = tmp_path / "work"
    shutil.copytree(finished, folder)
    file = folder / "work-0.jsonl"
    kept = [line for line in file.read_text().splitlines() if '"plan/' not in line[:8]]
    file.write_text("\n".join(kept) + "\n")
    video = folder / "dense-0.npy"
    whole = video.read_bytes()
    with closing(Workers().open(folder, settings().to_dict(), True)) as work:
        verifier = Search(pipe, settings(), work, Workers()).verifier
        for damage in ("empty", "text", "cut", "other", "shape"):
            damage_video(video, damage)
            shown = verifier.video("dense", 0)
            assert shown is None or damage == "shape"
            if damage in ("cut", "shape"):
                quality = verifier.verify(outcome.plan)
                assert quality.psnr_db == outcome.chosen.quality.psnr_db
                assert video.read_bytes() == whole
                del work.done[f"{outcome.chosen.key}/0"]


def test_a_video_is_written_whole_or_not_at_all(pipe, tmp_path, monkeypatch):
    asked = settings()
    with closing(Workers().open(tmp_path / "w", asked.to_dict(), False)) as work:
        verifier = Search(pipe, asked, work, Workers()).verifier
        assert isinstance(verifier, Verifier)
        monkeypatch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match=r"No space left on device.*dense-0\.npy"):
            verifier._sample(0, "dense")
        assert verifier.video("dense", 0) is None
        assert not list(work.folder.glob("*.part"))
        monkeypatch.undo()
        video, _ = verifier._sample(0, "dense")
        assert np.array_equal(verifier.video("dense", 0), video)
