"""Nothing is replaced silently, and what cannot be written is found before the work."""

import json

import pytest

from ajour.pipelines.draw import draw_pattern, is_drawn
from ajour.pipelines.outputs import check_unclaimed, check_writable, digests, own_files
from ajour.pipelines.usage import BadUsage
from ajour.search.cli import main
from tests.pipelines.conftest import LATE
from tests.search.conftest import GRID

NO_MODEL = "ajour.pipelines.bundled.load_pipeline"


@pytest.fixture
def earlier(tmp_path):
    """A folder as an earlier generate left it."""
    out = tmp_path / "out"
    out.mkdir()
    for name in ("dense.mp4", "sparse.mp4", "compare.mp4"):
        (out / name).write_bytes(name.encode())
    LATE.save(out / "plan.json")
    listed = digests(out.iterdir())
    (out / "report.json").write_text(json.dumps({"made_by": "ajour generate", "files": listed}))
    return out


@pytest.fixture
def loads(monkeypatch):
    """The models that were loaded; loading fails."""
    loaded = []

    def load(*args):
        loaded.append(args)
        raise RuntimeError("enough")

    monkeypatch.setattr(NO_MODEL, load)
    return loaded


def generate(out, *more):
    return main(["generate", "--device", "cpu", "--out", str(out), *more])


def test_generate_replaces_what_an_earlier_generate_wrote(earlier, loads):
    assert generate(earlier) == 1
    assert len(loads) == 1


@pytest.mark.parametrize("name", ["plan.json", "compare.mp4", "report.json"])
def test_generate_replaces_nothing_else(earlier, loads, capsys, name):
    (earlier / name).write_text('{"made_by": "ajour search"}')
    assert generate(earlier) == 2
    err = capsys.readouterr().err
    assert f"{earlier / name}" in err
    assert "nobody changed since" in err
    assert "--force" in err
    assert loads == []
    assert generate(earlier, "--force") == 1
    assert len(loads) == 1


def test_generate_replaces_no_searched_plan_where_it_never_ran(tmp_path, loads, capsys):
    LATE.save(tmp_path / "plan.json")
    assert generate(tmp_path) == 2
    assert "plan.json exists and would be replaced" in capsys.readouterr().err
    # The plan that runs stays where it is.
    assert generate(tmp_path, "--plan", str(tmp_path / "plan.json")) == 1
    assert len(loads) == 1


def test_files_are_an_earlier_runs_own_only_as_it_wrote_them(earlier):
    files = [earlier / name for name in ("dense.mp4", "sparse.mp4")]
    assert own_files(earlier / "report.json", files) == set(files)
    files[0].write_bytes(b"another")
    files[1].unlink()
    assert own_files(earlier / "report.json", files) == set()
    assert own_files(earlier / "none.json", files) == set()
    (earlier / "report.json").write_text('{"files": 3}')
    assert own_files(earlier / "report.json", files) == set()


def test_search_replaces_no_file_that_exists(tmp_path, loads, capsys):
    words = ["search", "mini", "--target-psnr", "28", "--device", "cpu"]
    notes = tmp_path / "notes.md"
    notes.write_text("mine")
    out = ["--out", str(notes)]
    assert main([*words, *out]) == 2
    assert f"{notes} exists and would be replaced" in capsys.readouterr().err
    assert main([*words, *out, "--resume"]) == 2  # there is nothing to resume
    assert loads == []
    assert notes.read_text() == "mine"
    assert main([*words, *out, "--force"]) == 1
    assert len(loads) == 1
    (tmp_path / "plan.html").write_text("mine")
    assert main([*words, "--out", str(tmp_path / "plan.json")]) == 2
    assert "plan.html exists" in capsys.readouterr().err


def test_bench_replaces_its_own_results_alone(tmp_path, loads, capsys):
    LATE.save(tmp_path / "plan.json")
    result = tmp_path / "bench.json"
    words = ["bench", str(tmp_path / "plan.json"), "--model", "mini", "--out", str(result)]
    result.write_text('{"mine": 1}')
    assert main(words) == 2
    assert "no result of an earlier bench" in capsys.readouterr().err
    result.write_text('{"made_by": "ajour bench"}')
    assert main(words) == 1
    assert len(loads) == 1


def test_inspect_replaces_its_own_pictures_alone(tmp_path, capsys):
    path = tmp_path / "a.png"
    draw_pattern("sparse", LATE.patterns[next(iter(LATE.patterns))], GRID, path)
    assert is_drawn(path)
    other = tmp_path / "b.png"
    other.write_text("no picture")
    assert not is_drawn(other)
    assert main(["inspect", "--out", str(other)]) == 2
    assert "no picture of an earlier inspect" in capsys.readouterr().err
    assert other.read_text() == "no picture"
    assert main(["inspect", "--out", str(tmp_path / "plan.json")]) == 2
    assert "give" in capsys.readouterr().err


def test_outputs_that_cannot_be_written_are_found_before_the_work(tmp_path, loads, capsys):
    (tmp_path / "file").write_text("")
    assert generate(tmp_path / "file" / "out") == 2
    assert "is no folder" in capsys.readouterr().err
    assert loads == []
    with pytest.raises(BadUsage, match="is a folder; name a file"):
        check_writable(tmp_path)
    with pytest.raises(BadUsage, match="cannot be written"):
        check_writable(tmp_path / ("x" * 400))
    with pytest.raises(BadUsage, match="no file can have this name"):
        check_writable(tmp_path / "a\0b")
    check_writable(tmp_path / "new" / "deep" / "plan.json")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_in_which_nothing_can_be_made_is_said(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("ajour.pipelines.outputs.tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(BadUsage, match="cannot be written: Permission denied"):
        check_writable(tmp_path / "plan.json")


def test_all_files_that_are_in_the_way_are_named(tmp_path):
    files = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    for file in files[:2]:
        file.write_text("")
    with pytest.raises(BadUsage, match=r"a, .*b exist and would be replaced; rename them"):
        check_unclaimed(files, False, "rename them")
    check_unclaimed(files, True, "rename them")
    check_unclaimed(files[2:], False, "rename them")
