"""What the command answers at once, without loading PyTorch; and Ctrl-C while it is loaded."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ajour
from ajour.search.cli import main
from ajour.search.commands import add_commands


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["generate", "--help"], ["search", "mini"], ["paint"]]
)
def test_help_version_and_bad_usage_do_not_load_torch(words):
    code = (
        "import sys\nfrom ajour.search.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'diffusers', 'numpy', 'gradio', 'rich', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_options_can_be_shortened(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["search", "mini", "--target-p", "x"])
    assert stop.value.code == 2
    assert "argument --target-psnr: must be a finite number" in capsys.readouterr().err


def test_the_version_is_said(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"ajour {ajour.__version__} (Python 3.")
    assert "torch " in out


@pytest.mark.parametrize("command", ["generate", "inspect", "search", "bench", "doctor", "demo"])
def test_no_help_has_a_default_of_none(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    out = capsys.readouterr().out
    assert "None" not in out
    assert "--calibrate" not in out


def test_ctrl_c_while_importing_is_no_traceback(tmp_path):
    """A module in the place of torch interrupts the process as it is imported."""
    (tmp_path / "torch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    handler = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code = handler + "import sys\nfrom ajour.search.cli import main\nsys.exit(main(['doctor']))"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 130
    assert done.stderr == "ajour: interrupted\n"


def test_every_public_name_is_found_and_listed():
    assert set(ajour.__all__) <= set(dir(ajour))
    assert sorted(name for names in ajour.MODULES.values() for name in names) == sorted(
        ajour.__all__
    )
    for name in ajour.__all__:
        assert getattr(ajour, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ajour.nothing  # noqa: B018 - the access is what is tested


def test_outputs_of_a_search_do_not_litter_a_checkout():
    ignored = (Path(__file__).parents[2] / ".gitignore").read_text().splitlines()
    assert {"out/", "*.search/"} <= set(ignored)
    commands = argparse.ArgumentParser().add_subparsers()
    add_commands(commands)
    for words in (["search", "mini", "--target-psnr", "28"], ["bench", "plan.json"]):
        parser = commands.choices[words[0]]
        assert parser.parse_args(words[1:]).out.parts[0] == "out"
