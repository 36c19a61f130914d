"""Runs of the page on a tiny pipeline: files, news, stops, failures, measured errors."""

import json
from dataclasses import replace

import imageio.v3 as imageio
import numpy as np
import pytest

from ajour import Full, Phase, Plan, PlanError, Schedule, Skip
from ajour.demo.attended import SHOWN
from ajour.demo.attention_time import AttentionClock, attention_share
from ajour.demo.device import DONE, FAILED, STOPPED
from ajour.demo.errors import measure, measured_steps
from ajour.demo.heads import ShownPlan, map_page
from ajour.demo.model import find_model
from ajour.demo.server import MOST_BYTES
from ajour.demo.store import FILES, Errors, Result, Store, views
from ajour.demo.verdict import verdict
from ajour.pipelines.auto import Auto
from ajour.pipelines.enable import is_enabled
from ajour.schedule import REUSE
from tests.demo.conftest import REQUEST, SIZE, finish, tiny_model
from tests.pipelines.conftest import LATE, make_plan, run
from tools.demo_example import main as make_example

# The writer of video files leaves its pipe to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def submit(site, plan=LATE, owner="me", request=REQUEST):
    return site.device.submit(owner, lambda pipe, job: site.runner.run(pipe, job, request, plan))


def test_a_run_makes_every_file_and_reports_every_step(site):
    job = submit(site)
    progress = finish(job)
    assert job.state == DONE, job.error
    result = job.result
    report = result.report
    assert sorted(set(FILES) - {path.name for path in result.folder.iterdir()}) == []
    assert Result.load(result.folder).report == json.loads(json.dumps(report))
    assert report["size"] == list(SIZE)
    assert len(report["psnr_db_each"]) == len(report["ssim_each"]) == SIZE.frames
    assert report["sparse_steps"] > 0
    assert len(report["phases"]) == REQUEST.steps
    for arm in ("dense", "sparse"):
        times = report["step_seconds"][arm]
        assert len(times) == REQUEST.steps
        assert 0 < sum(attention for attention, _ in times) < report[f"{arm}_seconds"]
    assert imageio.imread(result.folder / "views.mp4").shape == (9, 3 * 128, 112, 3)
    last = progress[-1]
    assert (last.done, last.total, last.left) == (8, 8, 0.0)
    assert set(last.strips) == {"dense", "sparse"}
    assert last.strips["dense"].shape[2] == 3
    assert not last.coloured
    assert submit(site).state != FAILED


def test_the_second_run_has_colours(site):
    finish(submit(site))
    assert site.runner.colours is not None
    assert finish(submit(site))[-1].coloured


def test_an_automatic_plan_is_kept_with_what_it_measured(site):
    job = submit(site, Auto(0.6))
    finish(job)
    result = job.result
    assert result.plan.provenance["made_by"] == "auto"
    captured = [
        (name, layer, head)
        for name, rows in result.plan.assignments.items()
        for layer, row in enumerate(rows)
        for head, pattern in enumerate(row)
        if result.plan.patterns[pattern].kind == "captured"
    ]
    assert set(result.maps) == set(captured)
    again = Result.load(result.folder)
    for key, levels in result.maps.items():
        assert levels.shape == (2, 2)
        assert np.array_equal(again.maps[key], levels)


def test_a_stop_in_the_middle_leaves_the_pipeline_as_it_was(site, pipe):
    before = run(pipe)
    job = submit(site)
    for now in job.watch(every=0.0):
        if now.progress is not None and now.progress.label == "sparse":
            site.device.stop("me")
    assert job.state == STOPPED
    assert job.result is None
    assert not is_enabled(pipe)
    assert (run(pipe) == before).all()


def test_a_plan_for_another_model_fails_and_says_so(site):
    data = LATE.to_dict()
    data["model"]["head_dim"] = 64
    job = submit(site, Plan.from_dict(data))
    finish(job)
    assert job.state == FAILED
    assert "the plan is for another model: head_dim 64 != 16" in job.error
    finish(next_job := submit(site))
    assert next_job.state == DONE


def test_a_size_that_the_pipeline_refuses_is_said(site):
    job = submit(site, request=type(REQUEST)("x", 0, 2, type(SIZE)(9, 100, 100), 1.0))
    finish(job)
    assert job.state == FAILED
    assert "divisible by 16" in job.error


def test_errors_are_measured_on_every_head(site):
    shown = ShownPlan.of(LATE, "test", "3x8x7")
    job = site.device.submit("me", lambda pipe, job: measure(pipe, job, shown, REQUEST, site.model))
    finish(job)
    assert job.state == DONE, job.error
    errors = job.result.errors["sparse"]
    assert errors.shape == (2, 2)
    assert (errors > 0).any()
    assert (errors < 2).all()
    assert str(job.result.grid) == "3x8x7"
    assert "each phase in a step that uses it" in job.result.measured
    assert not is_enabled(site.device.pipe)


def test_errors_need_a_plan_for_the_model(site):
    data = LATE.to_dict()
    data["model"]["transformer"] = "FluxTransformer2DModel"
    shown = ShownPlan.of(Plan.from_dict(data), "test")
    job = site.device.submit("me", lambda pipe, job: measure(pipe, job, shown, REQUEST, site.model))
    finish(job)
    assert "another model" in job.error


def test_every_phase_is_measured_in_a_step_that_uses_it():
    plan = make_plan([Full(), Skip()])
    rows = plan.assignments["sparse"]
    schedule = Schedule((Phase(1.0, "a"), Phase(0.8, REUSE), Phase(0.5, "b"), Phase(0.05, "c")))
    plan = replace(plan, assignments={"a": rows, "b": rows, "c": rows}, schedule=schedule)
    steps = measured_steps(plan, [1.0, 0.9, 0.7, 0.5, 0.3, 0.1])
    assert steps == {"a": 1, "b": 4, "c": 3}  # no step uses the last: the middle of the run


def test_a_plan_without_patterns_is_not_measured(site, pipe):
    dense = replace(LATE, assignments={}, schedule=Schedule((Phase(1.0, "dense"),)))
    with pytest.raises(ValueError, match="every step of this plan is dense"):
        measure(pipe, None, ShownPlan.of(dense, "dense"), REQUEST, site.model)


def test_errors_are_kept_in_a_file(tmp_path):
    errors = Errors({"sparse": np.array([[0.123456, 0.0], [1e-7, 0.5]])}, "so")
    errors.save(tmp_path / "errors.json")
    again = Errors.load(tmp_path / "errors.json")
    assert again.measured == "so"
    assert np.allclose(again.by_assignment["sparse"], errors.by_assignment["sparse"], rtol=1e-3)


def test_the_stored_example_is_what_generate_makes_at_first(tmp_path):
    example, model = Store(tmp_path).example(), find_model()
    assert example.plan.patterns == model.plan.patterns
    assert example.plan.assignments == model.plan.assignments
    report = example.report
    assert tuple(report["size"]) == model.sizes[model.usual_size]
    assert (report["prompt"], report["steps"], report["seed"]) == (model.prompts[0], model.steps, 0)
    said = verdict(report["speedup"], report["psnr_db"], report["ssim"])
    assert said.kind == "good"
    assert report["speedup"] > 2
    assert set(example.errors.by_assignment) == set(example.plan.schedule.assignments)
    shown = ShownPlan.of_result(example, "stored")
    assert shown.frames.shape[0] == SHOWN
    with pytest.raises(ValueError, match="has 25 frames, not 26"):
        example.frames([0, 25])
    for name in example.plan.schedule.assignments:
        text = map_page(shown, name, "error")
        assert "not measured" not in text
        assert "error 0" in text


def test_the_clock_counts_attention_and_the_rest(pipe):
    clock = AttentionClock(pipe)
    assert clock.steps("dense") == ()
    assert attention_share(()) is None
    with clock.listen():
        run(pipe)
        clock.close_step("dense", 0)
    (step,) = clock.steps("dense")
    assert step.attention > 0
    assert step.rest > 0
    assert 0 < attention_share([step]) < 1
    run(pipe)
    clock.close_step("dense", 1)
    assert clock.steps("dense")[1].total == 0  # nothing is measured outside the block


def test_the_difference_is_amplified_and_clipped():
    dense = np.zeros((1, 2, 2, 3), np.float32)
    video = views(dense, dense + np.array([0.05, 0.5, 0], np.float32))
    assert video.shape == (1, 6, 2, 3)
    assert np.allclose(video[0, 4:], [0.4, 1, 0])


def test_old_runs_go_first_and_names_cannot_be_guessed(tmp_path):
    store = Store(tmp_path, most=2)
    folders = [store.new() for _ in range(3)]
    assert [folder.exists() for folder in folders] == [False, True, True]
    assert min(len(folder.name) for folder in folders) >= 20


def test_without_an_example_there_is_none(tmp_path):
    assert Store(tmp_path).example(tmp_path / "nowhere") is None


def test_the_stored_example_is_made_in_one_command(make_pipe, tmp_path, capsys):
    make_pipe().save_pretrained(tmp_path / "model")
    out = tmp_path / "example"
    words = ["--model", str(tmp_path / "model"), "--frames", "5", "--height", "96", "--width", "96"]
    assert make_example([*words, "--steps", "4", "--out", str(out)]) == 0
    assert "bytes" in capsys.readouterr().out
    assert (out / "colours.json").is_file()
    assert Result.load(out).errors.by_assignment
    store = Store(tmp_path / "served")
    example = store.example(out)
    assert example.folder.is_relative_to(store.root)
    assert ShownPlan.of_result(example, "stored").source == "stored"


def test_uploads_are_plans_or_said_to_be_none(site):
    data = LATE.to_dict()
    shown, said = site.read_upload("mine.json", json.dumps(data))
    assert shown.plan == LATE
    assert "mine.json is a valid plan" in said
    data["model"]["layers"] = 1
    data["assignments"]["sparse"].pop()
    assert "cannot" not in said
    said = site.read_upload("mine.json", json.dumps(data))[1]
    assert "You can look at it, but not run it" in said
    for text, reason in (
        ("{", "is not JSON"),
        ("[" * 10**5, "is not JSON"),
        ("[]", "must be an object"),
        ("{}", "plan lacks assignments"),
        (" " * (MOST_BYTES + 1), "is larger than 1 MiB"),
        ("\ud800", "is not JSON"),
    ):
        with pytest.raises(PlanError, match=reason):
            site.read_upload("mine.json", text)


def test_the_reason_against_an_upload_is_short(site):
    data = LATE.to_dict()
    data["format_version"] = "x" * 10**5
    with pytest.raises(PlanError) as error:
        site.read_upload("a" * 10**5, json.dumps(data))
    assert len(str(error.value)) < 600
    data = LATE.to_dict()
    data["model"]["transformer"] = "x" * 10**5
    with pytest.raises(PlanError) as error:
        site.read_upload("mine.json", json.dumps(data))
    assert len(str(error.value)) < 600


def test_models_need_no_more_than_a_prompt(make_pipe):
    from diffusers import WanImageToVideoPipeline

    from ajour.demo.model import check_pipeline, sizes_of, steps_of

    plain = make_pipe()
    check_pipeline(plain)
    assert steps_of(plain) == (50, 5.0)
    sizes = sizes_of(plain)
    assert list(sizes) == ["Quarter", "Half", "Full"]  # small first on a CPU
    assert sizes["Full"] == (81, 480, 832)
    parts = {name: getattr(plain, name) for name in ("tokenizer", "text_encoder", "vae")}
    needs = WanImageToVideoPipeline(
        **parts, scheduler=plain.scheduler, transformer=plain.transformer, image_processor=None,
        image_encoder=None,
    )  # fmt: skip
    with pytest.raises(TypeError, match="needs more than a prompt"):
        check_pipeline(needs)
    with pytest.raises(TypeError, match="is not supported"):
        check_pipeline(object())


def test_a_model_is_called_with_what_it_takes(site, pipe):
    call = tiny_model(None).call(pipe, REQUEST)
    assert call["num_frames"] == 9
    assert call["max_sequence_length"] == 64

    class Images:
        def __call__(self, prompt, height, width, num_inference_steps): ...

    assert set(tiny_model(None).call(Images(), REQUEST)) == {
        "height",
        "width",
        "num_inference_steps",
    }
