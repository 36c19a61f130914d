"""Sparse attention beside what people add to a pipeline on a GPU: autocast, compile, offload."""

import copy

import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.hooks import apply_group_offloading

import ajour
from ajour import Auto
from tests.processors.families import FULL, SPARSE, cast, make, output, sparse
from tests.processors.models import CASES

NAMES = ("Wan", "HunyuanVideo", "Flux", "QwenImage")

pytestmark = pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")


@pytest.fixture(autouse=True)
def _exact_matmuls():
    torch._dynamo.reset()
    torch.set_float32_matmul_precision("highest")
    yield
    torch._dynamo.reset()


def moved(value, device="cuda"):
    """Tensors, also in lists, on a device."""
    if isinstance(value, list):
        return [moved(part, device) for part in value]
    return value.to(device) if isinstance(value, torch.Tensor) else value


def case(name):
    """A transformer on the CPU, and inputs on the GPU."""
    grid = (1, 12, 13) if name in ("Flux", "QwenImage") else (3, 7, 9)
    inputs = CASES[name].inputs(grid, 7, 1)
    return make(name), {key: moved(value) for key, value in inputs.items()}


def call(transformer, inputs):
    """The output in float64; inputs keep their dtypes."""
    return output(transformer(**inputs, return_dict=False))


def exact(transformer, inputs, patterns):
    """The output of a plan in float64, computed by the reference."""
    transformer = cast(copy.deepcopy(transformer), torch.float64).cuda()
    inputs = {
        key: value.double() if getattr(value, "dtype", None) == torch.float32 else value
        for key, value in inputs.items()
    }
    with sparse(transformer, patterns, backend="reference", strict=True):
        return call(transformer, inputs)


def assert_errs_like(ours, stock, ours_exact, stock_exact, dtype):
    """Sparse attention errs at most about as much as stock does with all of the attention."""
    ulp = torch.finfo(dtype).eps * ours_exact.abs().max()
    error, allowed = (ours - ours_exact).abs(), (stock - stock_exact).abs()
    assert error.max() <= 3 * allowed.max() + 2 * ulp
    assert error.mean() <= 2 * allowed.mean() + 2 * ulp


@pytest.mark.parametrize("name", NAMES)
def test_autocast(name):
    transformer, inputs = case(name)
    exact_full, exact_sparse = (exact(transformer, inputs, p) for p in (FULL, SPARSE))
    transformer.cuda()
    with torch.autocast("cuda", torch.bfloat16):
        stock = call(transformer, inputs)
        with sparse(transformer, FULL, strict=True):
            full = call(transformer, inputs)
        with sparse(transformer, SPARSE, strict=True):
            ours = call(transformer, inputs)
    assert_errs_like(full, stock, exact_full, exact_full, torch.bfloat16)
    assert_errs_like(ours, stock, exact_sparse, exact_full, torch.bfloat16)


def in_groups(transformer, folder, kind, stream=False, disk=False):
    apply_group_offloading(
        transformer, torch.device("cuda"), torch.device("cpu"), kind, num_blocks_per_group=1,
        use_stream=stream, offload_to_disk_path=str(folder) if disk else None,
    )  # fmt: skip


WAYS = {
    "model": lambda transformer, _: cpu_offload_with_hook(transformer, torch.device("cuda")),
    "sequential": lambda transformer, _: cpu_offload(transformer, torch.device("cuda")),
    "blocks": lambda *x: in_groups(*x, "block_level"),
    "blocks, streams": lambda *x: in_groups(*x, "block_level", stream=True),
    "leaves": lambda *x: in_groups(*x, "leaf_level"),
    "leaves, streams": lambda *x: in_groups(*x, "leaf_level", stream=True),
    "leaves to disk": lambda *x: in_groups(*x, "leaf_level", disk=True),
    "leaves to disk, streams": lambda *x: in_groups(*x, "leaf_level", stream=True, disk=True),
}


def chosen(transformer, inputs):
    """The automatic plan of a run of two steps, and the output of its last step."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    with ajour.sparse(transformer, Auto(0.5), scheduler=scheduler, strict=True):
        scheduler.set_timesteps(2)
        for step in range(2):
            out = call(transformer, inputs)
            scheduler.step(torch.zeros(1, 4), scheduler.timesteps[step], torch.zeros(1, 4))
        return ajour.current_plan(transformer), out


# safetensors maps files without closing them.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_offload(name, way, tmp_path):
    transformer, inputs = case(name)
    resident = copy.deepcopy(transformer).cuda()
    plan, automatic = chosen(resident, inputs)
    with sparse(resident, SPARSE, strict=True):
        static = call(resident, inputs)
    WAYS[way](transformer, tmp_path)
    same, out = chosen(transformer, inputs)
    assert same == plan
    torch.testing.assert_close(out, automatic, rtol=1e-5, atol=1e-5)
    with sparse(transformer, SPARSE, strict=True):
        out = call(transformer, inputs)
    torch.testing.assert_close(out, static, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("name", NAMES)
def test_compile(name, mode):
    transformer, inputs = case(name)
    exact_full, exact_sparse = (exact(transformer, inputs, p) for p in (FULL, SPARSE))
    transformer.cuda()
    stock = call(transformer, inputs)
    transformer.compile_repeated_blocks(mode=mode, fullgraph=True)
    for _ in range(3):  # CUDA graphs warm up, are recorded, run
        with sparse(transformer, SPARSE, strict=True):
            ours = call(transformer, inputs)
        assert_errs_like(ours, stock, exact_sparse, exact_full, torch.float32)


def test_an_automatic_plan_is_compiled_with_cuda_graphs():
    transformer, inputs = case("Wan")
    transformer.cuda()
    _, eager = chosen(transformer, inputs)
    transformer.compile_repeated_blocks(mode="reduce-overhead", fullgraph=True)
    _, compiled = chosen(transformer, inputs)
    assert (compiled - eager).norm() <= 1e-3 * eager.norm()


@pytest.mark.parametrize("name", NAMES)
def test_the_default_device_may_be_the_gpu(name):
    transformer, inputs = case(name)
    transformer.cuda()
    plan, expected = chosen(transformer, inputs)
    with torch.device("cuda"):
        same, out = chosen(transformer, inputs)
    assert same == plan
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["_native_cudnn", "_native_flash", "xformers", "flash", "sage"])
def test_a_dense_backend_runs_dense_steps(backend):
    transformer, inputs = case("Wan")
    transformer, inputs = (
        transformer.cuda().bfloat16(),
        {key: value.bfloat16() if key != "timestep" else value for key, value in inputs.items()},
    )
    try:
        transformer.set_attention_backend(backend)
        stock = call(transformer, inputs)
    except (RuntimeError, ValueError, ImportError) as error:
        pytest.skip(f"{backend} does not run here: {str(error)[:200]}")
    schedule = ((1.0, "dense"), (0.5, "sparse"))
    scheduler = FlowMatchEulerDiscreteScheduler()
    with sparse(transformer, SPARSE, schedule, strict=True, scheduler=scheduler):
        scheduler.set_timesteps(2)
        dense = call(transformer, inputs)
    assert torch.equal(dense, stock)
