"""The commands search and bench, on a tiny pipeline in a folder."""

import functools
import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline, WanPipeline
from PIL import Image

from ajour import Plan
from ajour.search.cli import main
from ajour.search.files import beside
from ajour.search.work import Work
from tests.pipelines.conftest import LATE, make_transformer
from tests.search.conftest import given_costs, two_transformers, what_it_does

SIZES = [
    "--frames", "9", "--height", "128", "--width", "112", "--steps", "4", "--guidance", "1",
    "--text-length", "32", "--device", "cpu",
]  # fmt: skip

HALF = ("--target-mean-density", "0.5")
ONE = ("--verification-prompts", "1")


@pytest.fixture
def folder(make_pipe, tmp_path):
    make_pipe().save_pretrained(tmp_path / "model")
    (tmp_path / "prompts.txt").write_text("# two\na red circle\n\na blue star\na red circle\n")
    (tmp_path / "costs.json").write_text(json.dumps(given_costs()))
    return tmp_path


def search(folder, *words):
    return main(
        ["search", str(folder / "model"), *SIZES, "--prompts", str(folder / "prompts.txt"),
         "--costs", str(folder / "costs.json"), "--bands", "2", "--out", str(folder / "plan.json"),
         *words]
    )  # fmt: skip


def test_a_search_writes_plan_report_figures_and_costs(folder, capsys):
    assert search(folder, "--target-speedup", "1.2") == 0
    plan = Plan.load(folder / "plan.json")
    assert plan.provenance["target"] == {"kind": "speedup", "value": 1.2}
    assert (folder / "plan.html").read_text().startswith("<!doctype html>")
    assert json.loads((folder / "plan.figures.json").read_text())["met"] is True
    assert json.loads((folder / "plan.costs.json").read_text()) == given_costs()
    out = capsys.readouterr().out
    assert "1.2x, met by prediction (1." in out
    assert "met by prediction" in (folder / "plan.html").read_text()
    assert plan.provenance["target_met_by"] == "prediction"
    assert f"ajour.enable(pipe, '{folder / 'plan.json'}')" in out
    # Again without --resume: neither files nor work are thrown away by accident.
    assert search(folder, "--target-speedup", "1.2") == 2
    assert "would be replaced; give another --out" in capsys.readouterr().err
    assert search(folder, "--target-speedup", "1.2", "--force") == 1
    assert "holds the work of an earlier search" in capsys.readouterr().err
    assert search(folder, "--target-speedup", "1.2", "--resume", "--json") == 0
    assert json.loads(capsys.readouterr().out)["target_met"] is True
    assert what_it_does(Plan.load(folder / "plan.json")) == what_it_does(plan)
    # Another target may use what was measured; other measurements are refused.
    assert search(folder, "--target-speedup", "1.1", "--resume") == 0
    assert Plan.load(folder / "plan.json").provenance["target"]["value"] == 1.1
    assert search(folder, "--target-speedup", "1.1", "--seed", "5", "--resume") == 1
    assert "begun with another seed" in capsys.readouterr().err


def test_a_missed_target_is_exit_3_and_says_what_is_reached(folder, capsys):
    assert search(folder, "--target-speedup", "90") == 3
    err = capsys.readouterr().err
    assert "no plan reaches 90x by prediction from the given costs" in err
    assert (folder / "plan.json").exists()


def test_a_bound_that_is_missed_is_exit_3_and_one_that_is_held_is_not(folder, capsys):
    held = ("--max-flicker", "99", "--max-banding", "7")
    assert search(folder, "--target-speedup", "1.2", *held) == 0
    out = capsys.readouterr().out
    assert "at most 99: met" in out
    figures = json.loads((folder / "plan.figures.json").read_text())
    banding = figures["chosen"]["banding"]
    assert figures["bounds"]["banding"] == {"at_most": 7, "value": banding, "met": True}
    assert figures["target"]["bounds"] == {"banding": 7, "flicker": 99}
    assert "--max-banding 7.0" in (folder / "plan.html").read_text()
    assert search(folder, "--target-speedup", "1.2", "--max-perceptual", "1e-6", "--resume") == 3
    shown = capsys.readouterr()
    assert "no plan reaches 1.2x, perceptual at most 1e-06" in shown.err
    assert ", perceptual 0." in shown.err
    assert "at most 1e-06: missed" in shown.out
    provenance = json.loads((folder / "plan.json").read_text())["provenance"]
    assert provenance["target_met"] is False
    assert provenance["target"]["bounds"] == {"perceptual": 1e-6}
    assert provenance["verified"]["perceptual"] > 1e-6


def test_a_dry_run_estimates_and_writes_nothing(folder, capsys):
    assert search(folder, "--target-psnr", "30", "--dry-run", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    stages = [stage["stage"] for stage in result["stages"]]
    assert stages == ["calibrate", "dense", "verify", "compare"]  # costs are given
    assert result["seconds"] == pytest.approx(sum(x["seconds"] for x in result["stages"]), abs=0.1)
    assert not (folder / "plan.search").exists()
    assert search(folder, "--target-psnr", "30", "--dry-run") == 0
    assert "calibrate" in capsys.readouterr().out


def test_ctrl_c_keeps_the_work_and_says_how_to_resume(folder, monkeypatch, capsys):
    put = Work.put

    def interrupt(self, key, value):
        put(self, key, value)
        if key == "prompt/0":
            raise KeyboardInterrupt

    monkeypatch.setattr(Work, "put", interrupt)
    assert search(folder, "--target-mean-density", "0.7") == 130
    assert "--resume" in capsys.readouterr().err
    monkeypatch.setattr(Work, "put", put)
    assert search(folder, "--target-mean-density", "0.7", "--resume") == 0


def test_bench_repeats_the_verification(folder, capsys):
    assert search(folder, "--target-mean-density", "0.7") == 0
    capsys.readouterr()
    words = ["bench", str(folder / "plan.json"), "--seed", "0", "--device", "cpu"]
    words += ["--model", str(folder / "model")]
    words += ["--prompts", str(folder / "prompts.txt"), "--out", str(folder / "bench.json")]
    assert main([*words, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures == json.loads((folder / "bench.json").read_text())
    assert figures["made_by"] == "ajour bench"
    assert len(figures["psnr_db_each"]) == 2
    assert {"perceptual", "banding", "flicker"} <= set(figures["measures"]) <= set(figures)
    verified = json.loads((folder / "plan.json").read_text())["provenance"]["verified"]
    # The search verified on the second prompt with the second seed, which is bench's second run.
    assert figures["psnr_db_each"][1] == pytest.approx(verified["psnr_db"], abs=0.01)


@pytest.mark.parametrize(
    "words",
    [
        ["search"],
        ["search", "mini"],
        ["search", "mini", *HALF, "--target-psnr", "30"],
        ["search", "mini", "--target-mean-density", "dense"],
        ["search", "mini", *HALF, "--steps", "0"],
        ["search", "mini", *HALF, "--backend", "cuda"],
        ["bench"],
    ],
    ids=" ".join,
)
def test_bad_usage_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "usage: ajour" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target-mean-density", "1.5"], "target density is over 0 up to 1, got 1.5"),
        (["--target-mean-density", "0"], "target density is over 0 up to 1, got 0"),
        (["--target-psnr", "-3"], "target psnr is over 5 up to 100, got -3"),
        (["--target-speedup", "0.5"], "target speedup is over 1 up to 100, got 0.5"),
        (
            [*HALF, "--max-banding", "9"],
            "bound of banding is over 0 up to 7, got 9",
        ),
        (
            [*HALF, "--max-flicker", "1"],
            "bound of flicker is over 1 up to 99, got 1",
        ),
        ([*HALF, "--prompts", "{}/none.txt"], "cannot read prompts"),
        ([*HALF, "--prompts", "{}"], "cannot read prompts"),
        (
            [*HALF, "--prompts", "{}/one.txt"],
            "at least 2 different prompts",
        ),
        ([*HALF, "--prompts", "{}/latin.txt"], "must be UTF-8 text"),
        ([*HALF, "--costs", "{}/none.json"], "cannot read costs"),
        ([*HALF, "--costs", "{}/one.txt"], "is not JSON"),
        ([*HALF, "--costs", "{}/empty.json"], "not a table of costs"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_values_are_said_before_any_work(tmp_path, capsys, words, said):
    (tmp_path / "one.txt").write_text("a star\n# a ring\na star\n")
    (tmp_path / "latin.txt").write_bytes("caf\xe9\n".encode("latin-1"))
    (tmp_path / "empty.json").write_text("{}")
    words = [word.format(tmp_path) for word in words]
    code = 2 if re.search("target|bound", said) else 1
    assert main(["search", "nowhere", "--out", str(tmp_path / "plan.json"), *words]) == code
    err = capsys.readouterr().err
    assert err.startswith("ajour search: ")
    assert said in err
    assert not (tmp_path / "plan.search").exists()


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("", "is a folder; name a file"),
        ("plan.html", "names a JSON file; give"),
        ("one.txt/plan.json", "is no folder"),
    ],
)
@pytest.mark.parametrize("command", ["search", "bench"])
def test_a_useless_out_is_said_before_any_work(tmp_path, capsys, out, said, command):
    (tmp_path / "one.txt").write_text("")
    LATE.save(tmp_path / "late.json")
    words = {
        "search": ["search", "nowhere", *HALF],
        "bench": ["bench", str(tmp_path / "late.json"), "--model", "nowhere"],
    }[command]
    assert main([*words, "--out", str(tmp_path / out)]) == 2
    assert said in capsys.readouterr().err


def test_names_beside_a_plan_keep_its_dots():
    assert beside(Path("out/plan.json"), ".search") == Path("out/plan.search")
    assert beside(Path("wan2.1"), ".search") == Path("wan2.1.search")
    assert beside(Path("wan2.1.json"), ".html") == Path("wan2.1.html")


def test_costs_of_another_grid_are_refused_before_any_measurement(folder, capsys):
    assert search(folder, *HALF, "--height", "144") == 1
    err = capsys.readouterr().err
    assert "grid: 3x8x7 there, 3x9x7 here" in err
    assert "leave out --costs" in err
    assert "prompt/" not in (folder / "plan.search" / "work-0.jsonl").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "NVIDIA H200"}, "device: NVIDIA H200 there"),
        ({"dtype": "bfloat16"}, "dtype: bfloat16 there, float32 here"),
        ({"backend": "triton"}, "backend: triton there, cpu here"),
        ({"heads": 12}, "heads: 12 there, 2 here"),
        (["passes"], "passes: 2 there, 1 here"),
        (["names"], "candidates: skip, skipped"),
    ],
    ids=str,
)
def test_costs_of_other_conditions_are_refused(folder, capsys, change, said):
    costs = given_costs()
    if change == ["passes"]:
        costs["passes"] = 2
    elif change == ["names"]:
        costs["names"] = [name.replace("skip", "skipped") for name in costs["names"]]
    else:
        costs["conditions"] |= change
    (folder / "costs.json").write_text(json.dumps(costs))
    assert search(folder, *HALF) == 1
    assert said in capsys.readouterr().err


def test_costs_of_absurd_size_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ajour.search.timing.costs.MAX_BYTES", 2**20)
    (tmp_path / "costs.json").write_bytes(b" " * (2**20 + 1))
    words = [
        "search",
        "mini",
        "--target-mean-density",
        "0.5",
        "--costs",
        str(tmp_path / "costs.json"),
    ]
    assert main([*words, "--out", str(tmp_path / "plan.json")]) == 1
    assert "is larger than 1 MiB" in capsys.readouterr().err


@pytest.fixture
def from_image(_parts, tmp_path):
    """A folder with an image-to-video pipeline, prompts, and an image."""
    vae, text_encoder, tokenizer = _parts
    pipe = WanImageToVideoPipeline(
        tokenizer=tokenizer, text_encoder=text_encoder, vae=vae,
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0
        ),
        transformer=make_transformer(in_channels=36),
    )  # fmt: skip
    pipe.save_pretrained(tmp_path / "model")
    (tmp_path / "prompts.txt").write_text("a red circle\na blue star\n")
    (tmp_path / "costs.json").write_text(json.dumps(given_costs(passes=2)))
    Image.new("RGB", (112, 128), (200, 30, 30)).save(tmp_path / "first.png")
    return tmp_path


def test_a_pipeline_that_needs_an_image_gets_one(from_image, capsys):
    words = ["--target-speedup", "1.2", "--negative-prompt", "a ring", "--guidance", "2"]
    assert search(from_image, *words) == 1
    assert "WanImageToVideoPipeline needs an image: give --image FILE" in capsys.readouterr().err
    with_image = ["--image", str(from_image / "first.png")]
    assert search(from_image, *words, *with_image) == 0
    call = Plan.load(from_image / "plan.json").provenance["call"]
    assert call["negative_prompt"] == "a ring"
    assert call["image"].startswith("<Image 128x112x3 ")
    capsys.readouterr()
    again = [
        "bench",
        str(from_image / "plan.json"),
        "--device",
        "cpu",
        "--verification-prompts",
        "1",
    ]
    again += ["--prompts", str(from_image / "prompts.txt"), "--out", str(from_image / "b.json")]
    again += ["--model", str(from_image / "model")]
    assert main(again) == 1
    assert "needs an image: give --image FILE" in capsys.readouterr().err
    assert main([*again, *with_image, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["call"] == call


def test_an_image_that_is_none_and_one_that_is_not_taken_are_said(folder, capsys):
    words = [*HALF, "--image", str(folder / "prompts.txt")]
    assert search(folder, *words) == 1
    assert "cannot read image" in capsys.readouterr().err
    Image.new("RGB", (8, 8)).save(folder / "image.png")
    assert search(folder, *HALF, "--image", str(folder / "image.png")) == 1
    assert "WanPipeline takes no image" in capsys.readouterr().err


def test_a_dtype_is_loaded(folder, capsys):
    assert search(folder, *HALF, "--dtype", "bfloat16") == 1
    assert "dtype: float32 there, bfloat16 here" in capsys.readouterr().err


@pytest.mark.slow
def test_a_lora_is_loaded_and_said(folder, capsys, monkeypatch):
    loaded = []
    monkeypatch.setattr(WanPipeline, "load_lora_weights", lambda _, lora, **__: loaded.append(lora))
    assert search(folder, "--target-speedup", "1.2", "--lora", "some/lora") == 0
    assert Plan.load(folder / "plan.json").provenance["lora"] == "some/lora"
    assert "--lora some/lora" in (folder / "plan.html").read_text()
    words = ["bench", str(folder / "plan.json"), "--device", "cpu", *ONE]
    words += ["--prompts", str(folder / "prompts.txt"), "--out", str(folder / "bench.json")]
    words += ["--model", str(folder / "model")]
    assert main(words) == 1
    assert "was searched with the LoRA 'some/lora'; give --lora" in capsys.readouterr().err
    assert main([*words, "--lora", "some/lora"]) == 0
    assert loaded == ["some/lora"] * 2


def test_bench_and_inspect_take_a_plan_of_two_transformers(make_pipe, folder, capsys):
    pipe = two_transformers(make_pipe)
    pipe.save_pretrained(folder / "model")
    assert search(folder, "--target-mean-density", "0.7", "--steps", "6") == 0
    capsys.readouterr()
    words = ["bench", str(folder / "plan.json"), "--device", "cpu", *ONE]
    words += ["--prompts", str(folder / "prompts.txt"), "--out", str(folder / "bench.json")]
    words += ["--model", str(folder / "model")]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["psnr_db"] > 0
    plan, drawing = str(folder / "plan.json"), folder / "plan.png"
    assert main(["inspect", plan, "--grid", "3x8x7", "--out", str(drawing)]) == 0
    assert drawing.stat().st_size > 0


def test_a_missing_model_is_said(tmp_path, capsys):
    words = [
        "search",
        str(tmp_path / "none"),
        "--target-mean-density",
        "0.5",
        "--out",
        str(tmp_path / "p.json"),
    ]
    assert main(words) == 1
    assert "none" in capsys.readouterr().err


def test_bench_needs_to_know_the_model(tmp_path, capsys):
    LATE.save(tmp_path / "plan.json")
    assert main(["bench", str(tmp_path / "plan.json")]) == 1
    assert "give --model" in capsys.readouterr().err


def test_bench_compiles_for_as_long_as_it_runs(folder, capsys, monkeypatch):
    seen = []

    def fake(setup, *_):
        seen.extend(setup.pipe.transformer.blocks)
        assert all(block._compiled_call_impl is not None for block in seen)
        return {}

    eagerly = functools.partialmethod(torch.nn.Module.compile, backend="eager")
    monkeypatch.setattr(torch.nn.Module, "compile", eagerly)
    monkeypatch.setattr("ajour.search.bench.bench", fake)
    LATE.save(folder / "plan.json")
    words = ["bench", str(folder / "plan.json"), "--model", str(folder / "model"), "--compile"]
    words += ["--prompts", str(folder / "prompts.txt"), "--out", str(folder / "bench.json")]
    assert main([*words, "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["compiled"] is True
    assert all(block._compiled_call_impl is None for block in seen)
