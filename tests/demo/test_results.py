"""The Benchmark tab's contents: every kind of result file, and where the files are."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ajour.demo.result_kinds import OTHER, kind_of, rows_of
from ajour.demo.results_page import TREE, page, results_folder
from tests.demo.test_views import Checker

PLANS = [
    {"plan": "a", "psnr_db": 30.0, "mean_density": 0.4, "density": 0.2, "speedup": 1.25,
     "dense_seconds": 10.0, "sparse_seconds": 8.0, "ssim": 0.9, "adherence": {"all": 0.95}},
    {"plan": "b", "psnr_db": 25.0, "mean_density": 0.3},
]  # fmt: skip
RESULTS = {
    "kernels": [
        {"backend": name, "B": 1, "H": 2, "S": 1024, "D": 64, "list": "full", "density": density,
         "ms": ms, "tflops": 1.0}
        for name, density, ms in (("sdpa", 1.0, 2.0), ("triton", 0.25, 0.6), ("triton", 1.0, 2.5))
    ],
    "transformers": [
        {"case": "flux", "arm": arm, "layers": 3, "density": density, "speedup": gain, "ms": ms}
        for arm, density, gain, ms in (("stock", 1.0, 1.0, 1400.0), ("triton", 0.2, 1.4, 1000.0))
    ],
    "plans": PLANS,
    "times": [
        {"search_seconds": 300.0, "cost_model_error": 0.01, "density": 0.25,
         "dense_seconds": 20.0, "sparse_seconds": 10.0, "auto_seconds": 12.0,
         "attention_seconds": [{"plan": "searched", "predicted": 0.08, "measured": 0.075}]}
    ],
    "prologue": [
        {"shape": "wan", "stock_ms": 2.0, "exact_ms": 0.5, "exact_floor_ms": 0.25,
         "pooled_ms": 0.6, "pooled_floor_ms": 0.3}
    ],
    "capture": [
        {"shape": "1x2x1024x64", "density": 0.2, "ms": {"dense": 2.0, "capture": 1.0},
         "relative_to_dense": {"dense": 1.0, "capture": 0.5}}
    ],
    "prompts": [
        {"size": "5x32x32", "prompts": 4, "kind": "plain", "guidance": 3.0,
         "claims": {"colour": 0.75, "order": None}},
        {"size": "5x32x32", "prompts": 2, "kind": "events", "guidance": 3.0,
         "claims": {"colour": 1, "order": 0.5}},
    ],
    "other": [{"x": 7, "y": [1]}],
}  # fmt: skip
SEARCH = {
    "frontier": [{"seconds": 5.0, "decibels": 22.0}, {"seconds": 4.0, "decibels": 20.0}],
    "dense_seconds": 8.0, "density": 0.2, "met": True, "target": {"kind": "psnr", "value": 30},
    "chosen": {"seconds": 4.5, "speedup": 1.8, "psnr_db": 31.0, "decibels": 21.0},
    "verified": [{"speedup": 1.6, "psnr_db": 33.0},
              {"seconds": 4.5, "speedup": 1.8, "psnr_db": 31.0, "decibels": 21.0}],
    "baselines": [{"speedup": 1.9, "psnr_db": 16.0, "name": "window"}],
    "settings": {"calibration": ["a"], "verification": ["b", "c"]},
}  # fmt: skip
TEXTS = {
    "kernels": ("1,024 tokens, 2 heads of 64", "triton, full: 0.60 ms"),
    "transformers": ("flux, 3 layers", "1,000 ms, 1.40x, density 0.20"),
    "plans": ("1.25x", "30.0 dB", "0.950", "25.00 dB"),
    "times": ("300 s", "1.0% off", "searched, predicted", "80.0 ms", "75.0 ms", "density 0.25"),
    "prologue": ("2.00 ms", "0.50 ms, 2.00x its floor"),
    "capture": ("1 x 2 x 1024 x 64, density 0.20", "1.0 ms, 0.50x dense", "ms.capture"),
    "prompts": ("5x32x32", "4 plain", "2 events", "75%", "50%"),
    "other": ("Other results",),
}


def test_the_figures_of_a_search(tmp_path):
    (tmp_path / "search.json").write_text(json.dumps(SEARCH))
    text = page(tmp_path)
    Checker(text)
    for text_part in (
        "Target: psnr 30, met.",
        "verified on 2 others",
        "1.80x, 31.0 dB, density 0.20",
        "window for all heads: 1.90x, 16.0 dB",
        "on the way: 1.60x",
    ):
        assert text_part in text


@pytest.mark.parametrize("name", RESULTS)
def test_each_kind_of_result(name, tmp_path):
    facts = {"rows": RESULTS[name], "gpu": "G", "versions": {"torch": "2"}, "commit": "c"}
    (tmp_path / f"{name}.json").write_text(json.dumps(facts))
    text = page(tmp_path)
    Checker(text)
    assert f": {name}.json</h3>" in text
    assert "G, torch 2, commit c" in text
    assert text.count("<tr>") >= 1 + len(RESULTS[name])
    assert "All rows" in text
    for text_part in TEXTS[name]:
        assert text_part in text


def test_results_come_by_kind_and_others_are_passed_over(tmp_path):
    for name, rows in RESULTS.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"rows": rows}))
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "broken.json").write_text(json.dumps({"rows": [{"plan": 1, "psnr_db": None}]}))
    (tmp_path / "words.json").write_text(json.dumps({"rows": [PLANS[0] | {"psnr_db": "high"}]}))
    text = page(tmp_path)
    Checker(text)
    names = ("plans", "times", "transformers", "kernels", "prologue", "capture", "other")
    order = [text.index(f": {name}.json<") for name in names]
    assert order == sorted(order)
    assert "words.json" not in text
    assert "No stored results" in page(tmp_path / "nowhere")


def story_of(files, tmp_path):
    """The part of the page before the link to all measurements."""
    for name, data in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(data))
    return page(tmp_path).split("<details")[0]


def test_one_picture_has_all_methods(tmp_path):
    facts = {"size": [49, 256, 256], "steps": 20}
    times = {"dense_seconds_each": [10.0, 10.0], "sparse_seconds_each": [4.0, 5.0, 90.0]}
    rows = [
        {"plan": "plan", "psnr_db": 33.0, "ssim": 0.9, "mean_density": 0.2} | times,
        {"plan": "window", "psnr_db": 23.0, "mean_density": 0.2, "speedup": 1.5},
        {"plan": "MagCache 0.1/2", "psnr_db": 28.0, "mean_density": 1.0, "speedup": 1.9},
        {"plan": "plan + MagCache 0.1/2", "psnr_db": 27.0, "mean_density": 0.2, "speedup": 2.5},
        {"plan": "not timed", "psnr_db": 20.0, "mean_density": 0.2},
    ]
    other = [{"plan": "dense, 6 steps", "psnr_db": 27.0, "mean_density": 1.0, "speedup": 3.0}]
    small = [{"plan": "auto", "psnr_db": 40.0, "mean_density": 1.0, "speedup": 1.0}]
    text = story_of(
        {
            "methods": facts | {"rows": rows}, "steps": facts | {"rows": other},
            "small": {"size": [9, 32, 32], "steps": 20, "rows": small},
        },
        tmp_path,
    )  # fmt: skip
    Checker(text)
    assert text.count("<circle") == 5  # of one size, with a time
    assert "bundled plan</text>" in text
    assert "not timed" not in text
    for name in (
        "ajour", "simple plans", "MagCache", "MagCache on a plan", "dense, fewer steps",
    ):  # fmt: skip
        assert f"</i>{name}</li>" in text
    assert "bundled model, 49 frames, 256 x 256, whole run" in text
    assert "2.0x: 10.0 to 5.0 s" in text


def test_one_picture_has_whole_models_and_one_has_kernels(tmp_path):
    compared = [row | {"tree": "abc", "ms": 1.0} for row in RESULTS["transformers"]]
    passes = [
        {"case": "flux", "arm": f"{arm} eager", "layers": 3, "speedup": 1.0, "ms": ms}
        for arm, ms in (("stock", 1400.0), ("hopper", 700.0), ("triton", 1000.0))
    ]
    text = story_of(
        {"passes": {"rows": passes}, "trees": {"rows": compared},
         "kernels": {"rows": RESULTS["kernels"]}},
        tmp_path,
    )  # fmt: skip
    Checker(text)
    assert text.count("flux, one pass") == 1
    assert "2.0x: 1,400 to 700 ms" in text
    assert text.count("<svg") == 1
    assert "random, triton" not in text
    assert "full, triton: 3.3x" in text
    assert "1,024 tokens, 2 heads of 64" in text


def test_the_stored_results_make_three_pictures():
    story = page(results_folder()).split("<details")[0]
    titles = ["Quality against speed", "Whole models", "Kernels"]
    assert re.findall(r"<h3>(.*?)</h3>", story) == titles
    assert "<table" not in story


def test_long_results_say_what_is_left_out(tmp_path):
    (tmp_path / "long.json").write_text(json.dumps({"rows": [{"x": i} for i in range(300)]}))
    text = page(tmp_path)
    assert "First 200 of 300 rows" in text
    assert text.count("<tr>") == 201


def test_every_stored_result_is_of_a_known_kind():
    folder = results_folder()
    text = page(folder)
    Checker(text)
    for path in folder.glob("*.json"):
        assert path.name in text
        assert kind_of(rows_of(json.loads(path.read_text()))) is not OTHER, path.name


def test_an_installed_package_has_results_and_an_example(tmp_path):
    pytest.importorskip("setuptools")
    root = Path(__file__).parents[2]
    command = "from setuptools import setup; setup()"
    build = [sys.executable, "-c", command, "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(build, cwd=root, check=True, capture_output=True)
    code = (
        "import ajour; from ajour.demo.results_page import results_folder\n"
        "from ajour.demo.store import EXAMPLE, Result\n"
        "assert Result.load(EXAMPLE) is not None\n"
        "print(ajour.__file__, *sorted(file.name for file in results_folder().glob('*.json')))"
    )
    place = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    names = subprocess.run(
        [sys.executable, "-c", code], env=place, cwd=tmp_path, check=True, capture_output=True,
        text=True,
    ).stdout.split()  # fmt: skip
    assert names[0] == str(tmp_path / "ajour" / "__init__.py")
    assert names[1:] == sorted(path.name for path in TREE.glob("*.json"))
