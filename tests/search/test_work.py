import json

import pytest

from ajour.search.work import Work, WorkError

FOR = {"model": "tiny", "seed": 0}


def test_units_are_computed_once_and_kept(tmp_path):
    work = Work(tmp_path, FOR)
    assert work.once("a", lambda: (1, 2.5)) == [1, 2.5]
    again = Work(tmp_path, FOR, resume=True)
    assert again.once("a", lambda: pytest.fail("computed again")) == [1, 2.5]


@pytest.mark.parametrize("lost", [1, 5, 12])
def test_a_line_that_was_cut_off_is_dropped(tmp_path, lost):
    work = Work(tmp_path, FOR)
    work.put("a", 1)
    work.put("b", "x" * 20)
    file = tmp_path / "work-0.jsonl"
    file.write_bytes(file.read_bytes()[:-lost])
    again = Work(tmp_path, FOR, resume=True)
    assert again.done["a"] == 1
    assert "b" not in again.done
    again.put("b", 2)
    assert [json.loads(line)[0] for line in file.read_text().splitlines()] == ["identity", "a", "b"]
    assert Work(tmp_path, FOR, resume=True).done["b"] == 2


def test_work_is_not_overwritten_by_accident(tmp_path):
    Work(tmp_path, FOR).put("a", 1)
    with pytest.raises(WorkError, match=r"holds the work of an earlier search.*--resume"):
        Work(tmp_path, FOR)


def test_another_search_is_not_resumed(tmp_path):
    Work(tmp_path, FOR)
    with pytest.raises(WorkError, match="begun with another seed: 0 then, 1 now; resume with"):
        Work(tmp_path, FOR | {"seed": 1}, resume=True)
    work = Work(tmp_path, FOR, resume=True)
    work.claim("identity/origin", {"versions": {"torch": "2.9", "python": "3.11"}})
    again = Work(tmp_path, FOR, resume=True)
    with pytest.raises(WorkError, match=r"another versions \(torch: 2.9 then, 2.8 now\); resume"):
        again.claim("identity/origin", {"versions": {"torch": "2.8", "python": "3.11"}})


@pytest.mark.parametrize("line", [b"", b'["a", 1', b"[1, 2, 3]", b"7", b"[1, 2]", b"\xff", b"{}"])
def test_a_damaged_line_is_refused(tmp_path, line):
    Work(tmp_path, FOR).put("a", 1)
    file = tmp_path / "work-0.jsonl"
    file.write_bytes(file.read_bytes() + line + b"\n")
    with pytest.raises(WorkError, match=r"work-0\.jsonl, line 3, is damaged"):
        Work(tmp_path, FOR, resume=True)


def test_every_process_writes_its_own_file_and_reads_all(tmp_path):
    Work(tmp_path, FOR, rank=0).put("a", 1)
    other = Work(tmp_path, FOR, resume=True, rank=1)
    other.put("b", 2)
    assert (tmp_path / "work-1.jsonl").exists()
    assert Work(tmp_path, FOR, resume=True).done["b"] == other.done["a"] + 1
