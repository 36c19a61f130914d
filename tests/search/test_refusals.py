"""What cannot be done as it was asked is refused with the rule, before the work."""

import socket

import pytest

from ajour.demo.commands import check_address
from ajour.pipelines.bundled import check_model
from ajour.pipelines.devices import check_device
from ajour.pipelines.memory import host_bytes, memory_warning
from ajour.pipelines.usage import BadUsage
from ajour.search.cli import main
from ajour.search.settings import Settings, Target, read_prompts, split
from ajour.search.shape import RunShape, bands_of
from tests.search.conftest import GRID

SEARCH = ["search", "mini", "--target-psnr", "28", "--device", "cpu"]


def test_more_prompts_than_there_are_is_bad_usage(tmp_path, capsys):
    out = ["--out", str(tmp_path / "plan.json")]
    assert main([*SEARCH, *out, "--verification-prompts", "99"]) == 2
    err = capsys.readouterr().err
    assert "99 verification prompts were asked for, but there are 6 prompts" in err
    assert main([*SEARCH, *out, "--calibration-prompts", "6"]) == 2
    assert "6 calibration prompts" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "sizes"),
    [((None, None), (2, 3)), ((1, None), (1, 3)), ((None, 4), (2, 4)), ((3, 3), (3, 3)),
     ((None, 5), (1, 5)), ((5, None), (5, 1))],
)  # fmt: skip
def test_prompts_are_divided_as_asked(asked, sizes):
    calibration, verification = split(tuple("abcdef"), *asked)
    assert (len(calibration), len(verification)) == sizes
    assert not set(calibration) & set(verification)


def test_defaults_give_way_to_few_prompts():
    assert split(("a", "b")) == (("a",), ("b",))
    assert split(("a", "b", "c")) == (("a", "b"), ("c",))


def test_one_prompt_is_enough_to_bench_and_none_is_said(tmp_path):
    (tmp_path / "one.txt").write_text("a red ring\n")
    assert read_prompts(tmp_path / "one.txt") == ("a red ring",)
    (tmp_path / "one.txt").write_text("# none\n")
    with pytest.raises(ValueError, match="must hold at least 1 prompt, one per line, got 0"):
        read_prompts(tmp_path / "one.txt")


def test_more_bands_than_steps_are_refused_and_the_default_gives_way():
    run = RunShape(GRID, (1.0, 0.7, 0.3), 1)
    asked = {"target": Target("psnr", 30), "calibration": ("a",), "verification": ("b",)}
    with pytest.raises(BadUsage, match="a run of 3 steps has at most 3 bands, got 50"):
        bands_of(Settings("tiny", bands=50, **asked), run)
    assert len(bands_of(Settings("tiny", **asked), run).starts) == 3
    assert len(bands_of(Settings("tiny", bands=2, **asked), run).starts) == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "a device is cpu, cuda, or cuda:1 and so on, got 'nowhere'"),
        ("cuda", "device 'cuda' is not there: torch sees no CUDA device; use --device cpu"),
        ("cuda:7", "device 'cuda:7' is not there"),
    ],
)
def test_a_device_that_is_not_there_is_said(name, said, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(BadUsage, match=said):
        check_device(name)
    check_device("cpu")
    check_device(None)


def test_commands_check_the_device_before_the_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr(
        "ajour.pipelines.bundled.load_pipeline", lambda *_: pytest.fail("a model was loaded")
    )
    for words in (["generate"], SEARCH[:-2], ["demo"]):
        assert main([*words, "--device", "cuda"]) == 2
        assert "torch sees no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["/nothing", "./none", "~/none", "a/b/c"])
def test_a_model_that_is_no_folder_is_said(path, capsys):
    with pytest.raises(FileNotFoundError, match="no such folder; a model is a pipeline's folder"):
        check_model(path)
    assert main(["demo", "--model", path]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"ajour demo: no model at '{path}'")
    assert err.count("\n") == 1


def test_hub_ids_and_folders_may_be_models(tmp_path):
    check_model(None)
    check_model("owner/name")
    check_model(tmp_path)


def test_an_address_that_cannot_be_bound_is_one_sentence(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on port {port} of 127.0.0.1: address"):
            check_address("127.0.0.1", port)
    check_address("127.0.0.1", None)
    assert main(["demo", "--host", "192.0.2.1"]) == 1  # of no machine, by RFC 5737
    err = capsys.readouterr().err
    assert err.startswith("ajour demo: cannot listen on 192.0.2.1: ")
    assert err.count("\n") == 1


def test_a_size_that_cannot_fit_is_warned_of():
    size = {"num_frames": 1001, "height": 20_000, "width": 20_000}
    text = memory_warning(size, 16 * 2**30)
    assert "1001 x 20000 x 20000" in text
    assert "at least 36,036 GB, this machine has 17 GB" in text
    assert memory_warning({"num_frames": 81, "height": 480, "width": 832}, 16 * 2**30) == ""
    assert memory_warning({}, 2**30) == ""
    assert host_bytes() > 2**30
