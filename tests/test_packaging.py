"""The tree, its package list and its imports agree with the architecture."""

import ast
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ajour

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "accel": "ajour",
    "processors": "ajour.processors",
    "pipelines": "ajour.pipelines",
    "search": "ajour.search",
    "demo": "ajour.demo",
}
MAY_IMPORT = {
    "accel": {"ajour"},
    "processors": {"ajour", "ajour.processors"},
    "pipelines": {"ajour", "ajour.processors", "ajour.pipelines"},
    "search": {"ajour", "ajour.processors", "ajour.pipelines", "ajour.search"},
    "demo": {"ajour", "ajour.processors", "ajour.pipelines", "ajour.search", "ajour.demo"},
}
DATA = {"ajour.demo.results": "benchmarks/results"}
"""Packages that hold no code, and where their files are in the tree."""
MAY_ALSO = {"search/cli.py": {"ajour.demo.commands"}}  # the command line has all subcommands


def test_the_package_list_is_the_tree():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join([name, *path.parent.relative_to(ROOT / folder).parts])
        for folder, name in FOLDERS.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert set(listed) == found | set(DATA)


def test_the_metadata_say_who_made_it_and_what_it_runs_on():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["authors"]
    assert project["keywords"]
    assert project["version"] == ajour.__version__
    least = project["requires-python"].removeprefix(">=")
    assert f"Programming Language :: Python :: {least}" in project["classifiers"]


def test_the_source_distribution_has_docs_and_tests():
    manifest = (ROOT / "MANIFEST.in").read_text().splitlines()
    assert {"graft docs", "graft tests", "graft benchmarks", "graft tools"} <= set(manifest)
    files = next(line.split()[1:] for line in manifest if line.startswith("include "))
    assert all((ROOT / name).is_file() for name in files)


def test_the_wheel_is_under_30_mb_even_if_nothing_is_compressed():
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    data = {
        file
        for package, patterns in setup["package-data"].items()
        for pattern in patterns
        for file in _folder(package).glob(pattern)
    }
    code = {file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")}
    assert sum(file.stat().st_size for file in data | code if file.is_file()) < 30e6


def _folder(package):
    """The folder of a package in the tree."""
    if package in DATA:
        return ROOT / DATA[package]
    folder = max((f for f, name in FOLDERS.items() if f"{package}.".startswith(f"{name}.")),
                 key=lambda f: len(FOLDERS[f]))  # fmt: skip
    rest = package.removeprefix(FOLDERS[folder]).strip(".")
    return (ROOT / folder).joinpath(*rest.split(".") if rest else ())


def _layer(module):
    parts = module.split(".")
    inner = len(parts) > 1 and parts[1] in {"processors", "pipelines", "search", "demo"}
    return f"ajour.{parts[1]}" if inner else "ajour"


@pytest.mark.parametrize("folder", FOLDERS)
def test_import_rules_between_folders(folder):
    for path in (ROOT / folder).rglob("*.py"):
        if path == ROOT / "accel/__init__.py":
            continue  # the facade loads ajour.pipelines on first use
        for name in _imports(path) - MAY_ALSO.get(str(path.relative_to(ROOT)), set()):
            if name.split(".")[0] == "ajour":
                assert _layer(name) in MAY_IMPORT[folder], f"{path} imports {name}"


def _imports(path):
    """The modules that a file imports, for type checking too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def test_rooms_of_the_search_do_not_import_each_other_in_a_circle():
    rooms = {path.parent.name for path in (ROOT / "search").glob("*/__init__.py")}
    assert rooms >= {"calibrate", "timing", "solve", "verify", "report"}
    imports = {}
    for room in rooms:
        modules = set().union(*map(_imports, (ROOT / "search" / room).glob("*.py")))
        parts = [name.split(".") for name in modules if name.startswith("ajour.search.")]
        imports[room] = {part[2] for part in parts} & rooms - {room}
    tuple(TopologicalSorter(imports).static_order())  # raises CycleError


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_stay_small(folder):
    for path in (ROOT / folder).rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path


def test_import_is_light():
    code = (
        "import sys, torch; before = set(sys.modules); import ajour; ajour.Plan, ajour.attention; "
        "assert not torch.cuda.is_initialized(); "
        "print({name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"diffusers", "triton", "transformers", "cv2", "xformers", "accelerate", "scipy"}
    heavy |= {"matplotlib", "skimage", "gradio", "pandas"}
    loaded = ast.literal_eval(out.stdout)
    assert "ajour" in loaded
    assert not loaded & heavy


def test_the_folder_cannot_be_imported_under_its_own_name():
    code = "import accel"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert out.returncode != 0
    assert "imported as 'ajour'" in out.stderr
