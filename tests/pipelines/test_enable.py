"""Off is bit-identical to never on; full is stock; bad input changes nothing."""

import copy
import gc
import importlib
import logging
import weakref
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, SequentialHook
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DConditionModel, WanPipeline

import ajour
from ajour import Full, PlanError, Stripe, TokenGrid
from ajour.dispatch import choose
from ajour.pipelines.devices import execution_device
from ajour.pipelines.session import session_of
from ajour.pipelines.tables import TableCache
from ajour.processors import SparseProcessor
from tests.pipelines.conftest import (
    FULL,
    LATE,
    SPARSE,
    as_double,
    latents,
    make_plan,
    make_transformer,
    run,
)

GRIDS = [(1, 1, 1), (1, 3, 5), (2, 4, 4), (3, 7, 9), (5, 8, 8), (1, 16, 17), (13, 3, 2)]


def processors(pipe):
    return [block.attn1.processor for block in pipe.transformer.blocks]


def scheduler(shift=2.0):
    return FlowMatchEulerDiscreteScheduler(shift=shift)


@contextmanager
def one_step(transformer, plan, **options):
    """`ajour.sparse` with the scheduler of a transformer in the first step of a run."""
    driver = scheduler()
    with ajour.sparse(transformer, plan, scheduler=driver, **options):
        driver.set_timesteps(1)
        yield


def test_disabled_is_bit_identical_to_never_enabled(pipe):
    before = run(pipe)
    stock = processors(pipe)
    ajour.enable(pipe, SPARSE)
    assert not torch.equal(run(pipe), before)
    ajour.disable(pipe)
    assert processors(pipe) == stock
    assert torch.equal(run(pipe), before)
    assert "_ajour" not in pipe.__dict__
    assert not {"set_timesteps", "step"} & set(pipe.scheduler.__dict__)
    assert not pipe.transformer._forward_pre_hooks


def test_a_dense_schedule_is_bit_identical(pipe):
    before = run(pipe)
    with ajour.sparse(pipe, make_plan(SPARSE.patterns.values(), ((1.0, "dense"),))):
        assert torch.equal(run(pipe), before)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_full_plan_equals_stock(grid, dtype):
    transformer = make_transformer()
    inputs = latents(grid, batch=2)
    exact = as_double(transformer)(
        **inputs | {k: inputs[k].double() for k in ("hidden_states", "encoder_hidden_states")}
    )[0]
    transformer = transformer.to(dtype)
    cast = {k: inputs[k].to(dtype) for k in ("hidden_states", "encoder_hidden_states")}
    stock = transformer(**inputs | cast)[0].double()
    with one_step(transformer, FULL):
        ours = transformer(**inputs | cast)[0].double()
    ulp = torch.finfo(dtype).eps * exact.abs().max()
    error, allowed = (ours - exact).abs(), (stock - exact).abs()
    assert error.max() <= 2 * allowed.max() + 2 * ulp
    assert error.mean() <= allowed.mean() + 2 * ulp


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_sparse_plan_runs_the_same_on_every_backend(grid):
    transformer = make_transformer()
    inputs = latents(grid)
    out = {}
    for backend in ("reference", "cpu"):
        with one_step(transformer, SPARSE, backend=backend):
            out[backend] = transformer(**inputs)[0]
    torch.testing.assert_close(out["cpu"], out["reference"], rtol=1e-4, atol=1e-5)
    stock = transformer(**inputs)[0]
    assert torch.allclose(out["cpu"], stock, atol=1e-5) == (grid[0] * grid[1] * grid[2] <= 128)


@pytest.mark.parametrize("size", [(1, 16, 16), (1, 48, 80), (5, 112, 80), (17, 32, 48)], ids=str)
def test_a_pipeline_runs_at_any_size(pipe, size):
    with ajour.sparse(pipe, LATE):
        out = run(pipe, steps=2, size=size)
        frames, height, width = size
        assert ajour.summary(pipe).grid == f"{(frames + 3) // 4}x{height // 16}x{width // 16}"
    assert torch.isfinite(out).all()


def test_guidance_and_batches_run_sparse(pipe):
    options = {"prompt": ["a red circle", "a blue star"], "guidance_scale": 3.0}
    dense = run(pipe, **options)
    with ajour.sparse(pipe, FULL):
        torch.testing.assert_close(run(pipe, **options), dense, rtol=1e-3, atol=1e-4)
    with ajour.sparse(pipe, SPARSE):
        assert not torch.allclose(run(pipe, **options), dense, rtol=1e-3, atol=1e-4)


def test_two_sizes_in_one_process_do_not_share_tables(pipe):
    with ajour.sparse(pipe, SPARSE):
        first = run(pipe, steps=1)
        run(pipe, steps=1, size=(5, 48, 64))
        assert torch.equal(run(pipe, steps=1), first)


def test_an_exception_inside_with_restores_everything(pipe):
    before, stock = run(pipe), processors(pipe)
    with pytest.raises(KeyError), ajour.sparse(pipe, SPARSE):
        raise KeyError("interrupted")
    assert processors(pipe) == stock
    assert torch.equal(run(pipe), before)


def test_the_state_dict_keeps_its_keys_and_saving_works(pipe, tmp_path):
    keys = list(pipe.transformer.state_dict())
    ajour.enable(pipe, SPARSE)
    assert list(pipe.transformer.state_dict()) == keys
    assert len(list(pipe.transformer.modules())) == len(list(make_transformer().modules()))
    pipe.transformer.save_pretrained(tmp_path)
    loaded = type(pipe.transformer).from_pretrained(tmp_path)
    assert list(loaded.state_dict()) == keys


def test_fused_projections(pipe):
    inputs = latents((3, 7, 9))
    with one_step(pipe.transformer, SPARSE):
        apart = pipe.transformer(**inputs)[0]
    for block in pipe.transformer.blocks:
        block.attn1.fuse_projections()
    pipe.transformer.requires_grad_(False)
    with one_step(pipe.transformer, SPARSE, strict=True):
        torch.testing.assert_close(pipe.transformer(**inputs)[0], apart, rtol=1e-4, atol=1e-5)


def test_two_transformers_are_both_sparse(make_pipe):
    pipe = make_pipe(transformer_2=make_transformer(1), boundary_ratio=0.8)
    before = run(pipe)
    ajour.enable(pipe, SPARSE)
    assert {row.transformer for row in ajour.summary(pipe).layers} == {0, 1}
    assert not torch.equal(run(pipe), before)
    assert [runtime.grid is not None for runtime in session_of(pipe).runtimes] == [True, True]
    ajour.disable(pipe)
    assert torch.equal(run(pipe), before)


def test_a_stage_may_be_missing(make_pipe):
    pipe = make_pipe(transformer=None, transformer_2=make_transformer(1), boundary_ratio=1.0)
    with ajour.sparse(pipe, SPARSE):
        assert torch.isfinite(run(pipe)).all()


def test_timesteps_per_token(make_pipe):
    pipe = make_pipe(expand_timesteps=True)
    dense = run(pipe)
    with ajour.sparse(pipe, FULL):
        torch.testing.assert_close(run(pipe), dense, rtol=1e-3, atol=1e-4)
    with ajour.sparse(pipe, SPARSE):
        assert not torch.allclose(run(pipe), dense, rtol=1e-3, atol=1e-4)


def test_two_pipelines_do_not_share_state(make_pipe):
    one, other = make_pipe(), make_pipe()
    dense = run(other)
    with ajour.sparse(one, SPARSE):
        assert torch.equal(run(other), dense)
        with ajour.sparse(other, LATE):
            assert ajour.summary(one).schedule != ajour.summary(other).schedule


BAD_PLANS = [
    (make_plan(list(SPARSE.patterns.values())).to_dict() | {"format_version": 9}, "plan format"),
    ({}, "lacks"),
    ("no/such/plan.json", "cannot read plan"),
    (3.5, "a plan is"),
]


@pytest.mark.parametrize(("plan", "message"), BAD_PLANS)
def test_a_bad_plan_changes_nothing(pipe, plan, message):
    before, stock = run(pipe), processors(pipe)
    with pytest.raises(PlanError, match=message):
        ajour.enable(pipe, plan)
    assert processors(pipe) == stock
    assert torch.equal(run(pipe), before)


@pytest.mark.parametrize(
    ("key", "value"),
    [("layers", 3), ("heads", 4), ("head_dim", 32), ("transformer", "FluxTransformer2DModel")],
)
def test_a_plan_for_another_model_is_refused(key, value):
    config = {"layers": "num_layers", "heads": "num_attention_heads"}
    config["head_dim"] = "attention_head_dim"
    data = copy.deepcopy(SPARSE.to_dict())
    if key == "transformer":
        transformer, data["model"][key] = make_transformer(), value
    else:
        transformer = make_transformer(**{config[key]: value})
    stock = [block.attn1.processor for block in transformer.blocks]
    with pytest.raises(PlanError, match=f"another model.*{key}"):
        ajour.enable(transformer, data, scheduler=scheduler())
    assert [block.attn1.processor for block in transformer.blocks] == stock


def test_the_second_transformer_is_checked_before_the_first_is_changed(make_pipe):
    pipe = make_pipe(transformer_2=make_transformer(num_layers=3), boundary_ratio=0.8)
    stock = processors(pipe)
    with pytest.raises(PlanError, match="layers"):
        ajour.enable(pipe, SPARSE)
    assert processors(pipe) == stock


def test_enabling_twice_is_refused(pipe):
    ajour.enable(pipe, SPARSE)
    enabled = processors(pipe)
    for target in (pipe, pipe.transformer):
        with pytest.raises(RuntimeError, match=r"already enabled.*disable"):
            ajour.enable(target, SPARSE, scheduler=pipe.scheduler)
    assert processors(pipe) == enabled


@pytest.mark.parametrize("call", [ajour.disable, ajour.summary])
def test_not_enabled_is_said(pipe, call):
    with pytest.raises(RuntimeError, match="not enabled"):
        call(pipe)


def test_an_unsupported_transformer_gets_the_list():
    unet = UNet2DConditionModel(
        block_out_channels=(8,), norm_num_groups=4, down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",), cross_attention_dim=8, attention_head_dim=4,
    )  # fmt: skip
    with pytest.raises(TypeError, match=r"UNet2DConditionModel.*WanTransformer3DModel"):
        ajour.enable(unet, SPARSE, scheduler=scheduler())


def test_a_pipeline_without_transformer_gets_the_list():
    with pytest.raises(TypeError, match=r"no transformer.*WanTransformer3DModel"):
        ajour.enable(object(), SPARSE)


def test_a_bare_transformer_needs_its_scheduler():
    with pytest.raises(TypeError, match="scheduler="):
        ajour.enable(make_transformer(), SPARSE)


def test_an_unknown_backend_gets_the_list(pipe):
    with pytest.raises(ValueError, match=r"unknown backend 'cuda'.*reference"):
        ajour.enable(pipe, SPARSE, backend="cuda")


def stop(*_):
    raise InterruptedError


def test_an_obstacle_runs_dense_and_is_said_once(pipe, caplog):
    before = run(pipe)
    ajour.enable(pipe, SPARSE)
    for processor in processors(pipe):
        processor._parallel_config = object()
    hook = pipe.transformer.blocks[0].register_forward_pre_hook(stop)  # stock would fail here
    with caplog.at_level(logging.WARNING, logger="ajour"):
        for _ in range(3):
            with pytest.raises(InterruptedError):
                run(pipe)
    hook.remove()
    assert [row.density for row in ajour.summary(pipe).layers] == [1, 1]
    said = [r for r in caplog.records if "context parallelism" in r.message]
    assert len(said) == 1
    assert "context parallelism" in str(ajour.summary(pipe))
    for processor in processors(pipe):
        processor._parallel_config = None
    ajour.disable(pipe)
    assert torch.equal(run(pipe), before)


def test_strict_raises_instead_of_running_dense(pipe):
    ajour.enable(pipe, SPARSE, strict=True)
    processors(pipe)[0]._parallel_config = object()
    with pytest.raises(RuntimeError, match=r"strict.*context parallelism"):
        run(pipe)


def test_summary_tells_density_patterns_and_backend(pipe):
    ajour.enable(pipe, LATE)
    assert ajour.summary(pipe).density("sparse") is None
    run(pipe)
    state = ajour.summary(pipe)
    expected = ajour.lower([ajour.Diagonal(1.0), ajour.Stripe(3)], ajour.TokenGrid(3, 8, 7))
    assert state.density("sparse") == pytest.approx(expected.density())
    assert state.density("dense") == 1
    assert (state.grid, state.backend) == ("3x8x7", "cpu")
    text = str(state)
    assert all(word in text for word in ("1 diagonal, 1 stripe", "3x8x7", "sparse from 0.9"))


def test_supported_pipelines_exist():
    import diffusers

    names = ajour.supported_pipelines()
    assert "WanPipeline" in names
    assert all(hasattr(diffusers, name) for name in names)


def test_a_searched_plan_says_where_it_was_not_verified(pipe, caplog):
    origin = {"verified": {"psnr_db": 30.0}, "grid": "3x8x7", "device": "some GPU"}
    ajour.enable(pipe, replace(SPARSE, provenance=origin))
    with caplog.at_level(logging.WARNING, logger="ajour"):
        run(pipe)
        run(pipe, size=(9, 128, 128))
    said = [record.message for record in caplog.records]
    assert len(said) == 2
    assert "verified on device some GPU, not on" in said[0]
    assert said[1] == "the plan was verified on grid 3x8x7, not on 3x8x8"
    assert said[1] in str(ajour.summary(pipe))


def test_transformers_can_be_enabled_one_by_one(make_pipe):
    pipe = make_pipe(transformer_2=make_transformer(1), boundary_ratio=0.8)
    before, stock = run(pipe), processors(pipe)
    with ajour.sparse(pipe, SPARSE):
        together = run(pipe)
        phases = session_of(pipe).steps
    for transformer in (pipe.transformer, pipe.transformer_2):
        ajour.enable(transformer, SPARSE, scheduler=pipe.scheduler)
    assert torch.equal(run(pipe), together)
    assert session_of(pipe).steps == phases
    assert {row.transformer for row in ajour.summary(pipe).layers} == {0, 1}
    with pytest.raises(RuntimeError, match="already enabled"):
        ajour.enable(pipe, SPARSE)
    ajour.disable(pipe.transformer)
    assert ajour.summary(pipe.transformer_2).layers
    ajour.disable(pipe)
    assert torch.equal(run(pipe), before)
    assert processors(pipe) == stock
    assert not {"step", "set_timesteps"} & set(vars(pipe.scheduler))


def test_a_pipeline_and_its_transformer_are_disabled_by_each_other(make_pipe):
    pipe = make_pipe()
    twin = WanPipeline(**pipe.components)
    before, stock = run(pipe), processors(pipe)
    for one, other in [(pipe, pipe.transformer), (pipe.transformer, pipe), (pipe, twin)]:
        ajour.enable(one, SPARSE, scheduler=pipe.scheduler)
        with pytest.raises(RuntimeError, match="already enabled"):
            ajour.enable(other, SPARSE, scheduler=pipe.scheduler)
        ajour.disable(other)
        for holder in (one, other):
            with pytest.raises(RuntimeError, match="not enabled"):
                ajour.disable(holder)
        assert processors(pipe) == stock
    assert torch.equal(run(pipe), before)


def test_processors_of_an_earlier_enable_run_dense_and_are_said(pipe):
    before = run(pipe)
    ajour.enable(pipe, SPARSE)
    old = processors(pipe)
    ajour.disable(pipe)
    ajour.enable(pipe, SPARSE)
    pipe.transformer.blocks[0].attn1.processor = old[0]
    run(pipe)
    found = ajour.summary(pipe)
    assert any("earlier enable" in reason for reason in found.fallbacks)
    assert [row.density == 1 for row in found.layers if row.assignment == "sparse"] == [True, False]
    ajour.disable(pipe)
    pipe.transformer.blocks[0].attn1.processor = old[0].stock
    assert torch.equal(run(pipe), before)


def test_layers_on_several_devices_run_dense_and_are_said(pipe):
    before = run(pipe)
    pipe.transformer.hf_device_map = {"blocks.0": 0, "blocks.1": "cuda:1", "norm": "cpu"}
    with ajour.sparse(pipe, SPARSE):
        assert torch.equal(run(pipe), before)
        assert (
            "device_map spreads the transformer over cuda:0, cuda:1"
            in ajour.summary(pipe).fallbacks[0]
        )


def test_the_backend_is_that_of_the_weights_in_use(pipe, tmp_path, monkeypatch):
    pipe.transformer.save_pretrained(tmp_path)
    loaded = type(pipe.transformer).from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert next(loaded.parameters()).dtype == torch.float32  # diffusers keeps some so
    seen = []

    def watched(device, dtype, head_dim):
        seen.append((device.type, dtype))
        return choose(device, dtype, head_dim)

    module = importlib.import_module("ajour.pipelines.summary")
    monkeypatch.setattr(module, "choose", watched)
    with ajour.sparse(loaded, SPARSE, scheduler=pipe.scheduler):
        ajour.summary(loaded)
    assert set(seen) == {("cpu", torch.bfloat16)}


def test_inputs_are_not_where_the_layers_run():
    module = torch.nn.Linear(1, 1)
    cpu, gpu = torch.device("cpu"), torch.device("cuda:1")
    assert execution_device(module, cpu) == cpu
    module._hf_hook = AlignDevicesHook(execution_device=1)
    assert execution_device(module, cpu) == gpu
    module._hf_hook = SequentialHook(AlignDevicesHook(), AlignDevicesHook(execution_device=gpu))
    assert execution_device(module, cpu) == gpu


def test_a_transformer_does_not_keep_its_pipeline(make_pipe):
    pipe = make_pipe()
    ajour.enable(pipe, SPARSE)
    transformer, gone = pipe.transformer, weakref.ref(pipe)
    del pipe
    gc.collect()
    assert gone() is None
    ajour.disable(transformer)
    assert not any(isinstance(p, SparseProcessor) for p in transformer.attn_processors.values())


def test_tables_of_many_grids_are_kept_up_to_a_size(monkeypatch):
    cache = TableCache()
    first, second, third = ((((Full(), Stripe(n)),) * 3) for n in (2, 3, 4))
    grids = [TokenGrid(2, 8, 8, after=n) for n in range(4)]
    kept = {
        (grid, patterns): cache.lowered(grid, patterns, "cpu")
        for grid in grids
        for patterns in (first, second)
    }
    assert cache.lowered(grids[0], second, "cpu") is kept[grids[0], second]
    monkeypatch.setattr("ajour.pipelines.tables.LOWERED_BYTES", 0)
    assert cache.lowered(grids[3], first, "cpu") is kept[grids[3], first]
    new = cache.lowered(grids[3], third, "cpu")
    assert cache.lowered(grids[3], third, "cpu") is new
    assert cache.lowered(grids[3], second, "cpu") is kept[grids[3], second]
    assert cache.lowered(grids[0], second, "cpu") is not kept[grids[0], second]
