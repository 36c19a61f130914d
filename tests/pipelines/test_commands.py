"""The commands generate, inspect and doctor, on a tiny pipeline in a folder."""

import argparse
import functools
import json

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from PIL import Image

from ajour import Plan
from ajour.pipelines.options import add_call_arguments, call_options
from ajour.search.cli import main
from tests.pipelines.conftest import LATE


@pytest.fixture
def folder(make_pipe, tmp_path):
    make_pipe().save_pretrained(tmp_path / "model")
    LATE.save(tmp_path / "plan.json")
    return tmp_path


def generate(folder, *more):
    return main(
        ["generate", "--model", str(folder / "model"), "--plan", str(folder / "plan.json"),
         "--device", "cpu", "--frames", "9", "--height", "96", "--width", "112", "--steps", "3",
         "--out", str(folder / "out"), *more]
    )  # fmt: skip


# The writer of video files leaves its pipe to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_generate_writes_videos_and_report(folder, capsys):
    assert generate(folder, "--prompt", "a blue star", "--seed", "3") == 0
    out = folder / "out"
    report = json.loads((out / "report.json").read_text())
    wanted = {
        "prompt", "seed", "steps", "grid", "density", "dense_seconds", "sparse_seconds", "speedup",
        "psnr_db", "ssim", "perceptual", "banding", "backend", "versions", "command", "made_by",
        "model", "plan", "call", "dtype", "fps", "frames", "height", "width", "files",
    }  # fmt: skip
    assert wanted <= set(report)
    assert (report["prompt"], report["seed"], report["steps"]) == ("a blue star", 3, 3)
    assert report["grid"] == "3x6x7"
    assert report["speedup"] == pytest.approx(report["dense_seconds"] / report["sparse_seconds"])
    assert 0 < report["sparse_steps"] < 3
    printed = capsys.readouterr().out
    assert "measured on one pair of runs" in " ".join(printed.replace("│", " ").split())
    assert (report["frames"], report["height"], report["width"]) == (9, 96, 112)
    assert report["call"]["guidance_scale"] == 5.0  # the pipeline's own
    assert report["call"]["max_sequence_length"] == 512
    assert report["command"].startswith("ajour generate --model ")
    assert "--seed 3" in report["command"]
    assert report["plan"] == str(folder / "plan.json")
    assert len(report["dense_seconds_each"]) == 1
    assert set(report["measures"]) == {"psnr_db", "ssim", "perceptual", "banding"}
    assert report["measures"]["banding"]["unit"] == "levels of 255"
    assert f"{report['banding']:.2f} levels" in printed
    for measure in report["measures"].values():
        assert f"{measure['title']}: {measure['meaning']}" in printed.splitlines()
    dense, pair = imageio.imread(out / "dense.mp4"), imageio.imread(out / "compare.mp4")
    assert dense.shape == (9, 96, 112, 3)
    assert pair.shape == (9, 96 + 28, 2 * 112 + 8, 3)
    assert np.abs(pair[:, 28:, :112].astype(float) - dense).mean() < 4
    assert (out / "sparse.mp4").stat().st_size > 0


def test_json_is_what_the_report_holds(folder, capsys):
    assert generate(folder, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(
        (folder / "out" / "report.json").read_text()
    )


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_is_left_out_is_the_pipelines_own(folder, monkeypatch):
    seen, call = [], WanPipeline.__call__

    @functools.wraps(call)
    def small(self, **options):
        seen.append(options)
        size = {"num_frames": 5, "height": 64, "width": 64, "num_inference_steps": 2}
        return call(self, **options | size)

    monkeypatch.setattr(WanPipeline, "__call__", small)
    model = ["--model", str(folder / "model"), "--device", "cpu", "--out", str(folder / "out")]
    assert main(["generate", *model, "--guidance", "1"]) == 0
    assert seen[0]["guidance_scale"] == 1
    assert not {"num_frames", "height", "width", "num_inference_steps"} & set(seen[0])


def test_what_the_pipeline_does_not_take_is_said(folder, monkeypatch, capsys):
    monkeypatch.setattr(WanPipeline, "__call__", lambda self, prompt, height=64: None)
    assert generate(folder) == 1
    said = "WanPipeline takes no num_frames, num_inference_steps, width"
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_negative_prompt_an_image_and_a_lora_are_given_on(folder, monkeypatch):
    seen, loaded = [], []
    monkeypatch.setattr(WanPipeline, "load_lora_weights", lambda _, lora, **__: loaded.append(lora))

    def see(self, prompt, num_frames, height, width, num_inference_steps,
            negative_prompt, control_image, generator=None, output_type=None):  # fmt: skip
        seen.append((negative_prompt, control_image, self.dtype))
        raise RuntimeError("seen")

    monkeypatch.setattr(WanPipeline, "__call__", see)
    Image.new("L", (8, 6)).save(folder / "image.png")
    words = ["--negative-prompt", "blur", "--image", str(folder / "image.png")]
    assert generate(folder, *words, "--lora", "a/lora", "--dtype", "bfloat16") == 1
    negative, image, dtype = seen[0]
    assert (negative, image.mode, image.size) == ("blur", "RGB", (8, 6))
    assert dtype == torch.bfloat16
    assert loaded == ["a/lora"]


def test_a_missing_image_is_said(folder, monkeypatch, capsys):
    def needs(self, image, prompt, **options):
        raise AssertionError

    monkeypatch.setattr(WanPipeline, "__call__", needs)
    assert generate(folder) == 1
    err = " ".join(capsys.readouterr().err.split())
    assert "WanPipeline needs an image: give --image FILE" in err

    def fails(self, prompt, image=None, num_frames=1, height=1, width=1, num_inference_steps=1,
              generator=None, output_type=None):  # fmt: skip
        return image.size

    monkeypatch.setattr(WanPipeline, "__call__", fails)
    assert generate(folder) == 1
    err = " ".join(capsys.readouterr().err.split())
    assert "failed without an image ('NoneType'" in err
    assert "give --image FILE" in err


def test_a_missing_plan_is_said(folder, capsys):
    words = ["generate", "--plan", str(folder / "none.json"), "--out", str(folder / "out")]
    assert main(words) == 1
    assert "cannot read plan" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_model_without_plan_gets_an_automatic_one(folder, capsys):
    words = ["--plan", "auto", "--density", "0.9", "--seed", "1"]
    assert generate(folder, *words) == 0
    plan = Plan.load(folder / "out" / "plan.json")
    assert plan.provenance["made_by"] == "auto"
    assert plan.provenance["density"] == 0.9
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["sparse_steps"] >= 1


def test_a_density_is_for_automatic_plans(folder, capsys):
    assert generate(folder, "--density", "0.5") == 1
    assert 'is for plan="auto"' in capsys.readouterr().err


def test_a_plan_for_another_model_is_said(folder, capsys):
    data = LATE.to_dict()
    data["model"]["layers"] = 1
    data["assignments"]["sparse"].pop()
    (folder / "plan.json").write_text(json.dumps(data))
    assert generate(folder) == 1
    assert "the plan is for another model" in capsys.readouterr().err


def test_ctrl_c_is_130(folder, monkeypatch, capsys):
    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("ajour.pipelines.generate.sample", interrupt)
    assert generate(folder) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["paint"],
        ["generate", "--steps", "0"],
        ["generate", "--frames", "many"],
        ["generate", "--backend", "cuda"],
        ["inspect", "--grid", "13x16"],
        ["inspect", "--grid", "0x16x16"],
    ],
    ids=" ".join,
)
def test_bad_usage_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "usage: ajour" in capsys.readouterr().err


def test_inspect_draws_a_plan(folder, capsys):
    picture = folder / "drawn" / "plan.png"
    words = ["inspect", str(folder / "plan.json"), "--grid", "3x9x10", "--out", str(picture)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert printed.endswith(f"drawn on grid 3x9x10: {picture}\n")
    assert str(LATE) in printed
    pixels = imageio.imread(picture)
    assert pixels.std() > 10
    assert pixels.shape[0] <= 900  # of a screen
    assert pixels.shape[1] <= 1440


def test_doctor_names_every_backend(capsys):
    assert main(["doctor", "--json"]) == 0
    findings = {f["subject"]: f for f in json.loads(capsys.readouterr().out)}
    for backend in ("hopper", "triton", "cpu", "reference"):
        assert f"backend {backend} on cpu" in findings
    assert findings["dense backend native"]["works"]
    assert "set_attention_backend" in findings["dense backend native"]["detail"]
    assert "xformers" in findings["dense backend xformers"]["detail"]
    assert not findings["backend triton on cpu"]["works"]
    assert "GPU" in findings["backend triton on cpu"]["detail"]
    assert main(["doctor"]) == 0
    assert "bundled model" in capsys.readouterr().out


def test_a_size_by_name_gives_way_to_its_parts():
    parser = argparse.ArgumentParser()
    add_call_arguments(parser)
    sides = ("num_frames", "height", "width")

    def size(*words):
        options = call_options(parser.parse_args(words), own=True)
        return tuple(options[side] for side in sides)

    assert size("--size", "real") == (81, 480, 832)
    assert size("--size", "real", "--frames", "9") == (9, 480, 832)
    assert size() == size("--size", "default") == (49, 256, 256)
