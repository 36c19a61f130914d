"""Every link of the documentation leads somewhere, and the reference has every public name."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

import ajour

ROOT = Path(__file__).parents[1]
FOLDERS = "accel|processors|pipelines|search|demo|docs|tests|benchmarks|tools"
EXAMPLES = {"accel/patterns/cross.py"}
"""Files that the guides make."""
RAISED = ("Obstacle", "UnknownStep", "fall_back", "report")
"""Calls whose first argument says why something runs dense."""
pytestmark = pytest.mark.xdist_group("docs")  # the documentation is built once

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tools/**/*.md")])


def _inline(page):
    """Links and headings of a page, as GitHub reads it: (targets, anchors)."""
    tokens = MarkdownIt().enable("table").parse(page.read_text())
    targets, anchors = [], set()
    for before, token in zip(tokens, tokens[1:], strict=False):
        children = token.children or []
        found = (child.attrGet("href") or child.attrGet("src") for child in children)
        targets += [target for target in found if target]
        if before.type == "heading_open":
            words = "".join(child.content for child in children).strip().lower()
            anchors.add(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return targets, anchors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_anchors_of_a_page_exist(page):
    for target in _inline(page)[0]:
        if re.match(r"[a-z]+:", target):
            continue  # another site
        name, _, anchor = unquote(target).partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{target} leads nowhere"
        assert there.is_relative_to(ROOT), f"{target} is outside of the repository"
        assert not anchor or anchor in _inline(there)[1], f"{target} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_in_a_page_exist(page):
    paths = re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", page.read_text())
    missing = [path for path in paths if not (ROOT / path).exists() and path not in EXAMPLES]
    assert missing == []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The documentation as `make docs` builds it: a warning is an error."""
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
    done = subprocess.run(
        [*command, str(ROOT / "docs"), str(folder)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_reference_has_every_public_name(site):
    reference = "".join(page.read_text() for page in (site / "reference").glob("*.html"))
    names = {*ajour.__all__, "Summary"}
    missing = [
        name for name in sorted(names) if not re.search(rf'id="ajour[\w.]*\.{name}"', reference)
    ]
    assert not missing


def test_every_guide_is_in_the_index(site):
    index = (site / "index.html").read_text()
    for page in ROOT.glob("docs/*.md"):
        assert page.stem == "index" or f'href="{page.stem}.html"' in index


def _reasons():
    """What the code says where something runs dense: the longest fixed part of each message."""
    for path in sorted([*ROOT.glob("processors/*.py"), *ROOT.glob("pipelines/*.py")]):
        tree = ast.parse(path.read_text())
        constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            texts = []
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                texts = node.args[:1] if name in RAISED else []
            elif (
                isinstance(node, ast.FunctionDef)
                and node.name == "obstacle"
                and node.args.args[0].arg == "self"
            ):
                texts = [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return)]
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "reason":
                texts = [node.value]
            for text in texts:
                text = constants.get(getattr(text, "id", None), text)
                parts = getattr(text, "values", [text])
                fixed = [part.value for part in parts if isinstance(part, ast.Constant)]
                yield from [max((x for x in fixed if isinstance(x, str)), key=len, default="")]


def test_troubleshooting_has_every_reason_to_run_dense():
    page = " ".join((ROOT / "docs/troubleshooting.md").read_text().split())
    reasons = {reason.strip() for reason in _reasons()} - {""}
    assert len(reasons) > 15
    assert [reason for reason in sorted(reasons) if reason not in page] == []
