"""The Triton backend: in the interpreter on the CPU, and compiled offline for its targets."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ajour import TokenGrid
from ajour.backends.packing import padded_channels
from ajour.backends.triton.launch import choose_config

triton = pytest.importorskip("triton")

SHARED_LIMIT = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
"""Shared memory of a program in KiB, by compute capability times ten."""

CASES = [
    (TokenGrid(1, 1, 1), 16), (TokenGrid(2, 3, 4), 40), (TokenGrid(1, 8, 16), 16),
    (TokenGrid(3, 7, 9), 16), (TokenGrid(3, 7, 9), 24), (TokenGrid(3, 7, 9, 5, 11), 16),
    (TokenGrid(2, 5, 9, before=7), 32), (TokenGrid(1, 9, 15, after=130), 16),
]  # fmt: skip


def attended(number):
    """Dtypes and numbers of levels of a case; both of each occur at every second grid."""
    levels = (1, 4) if number % 2 else (4, 1)
    return tuple(zip((torch.float32, torch.float16), levels, strict=True))


def aligned(signature, *more):
    """Divisibility by 16 of pointers and `more`: what a launch specialises a kernel for."""
    attributes = [["tt.divisibility", 16]]
    return {
        (place,): attributes
        for place, (name, kind) in enumerate(signature.items())
        if kind.startswith("*") or name in more
    }


def stack(cubin, path):
    """Bytes per thread that a compiled kernel keeps in memory for want of registers."""
    path.write_bytes(cubin)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    report = subprocess.check_output([tool, "--dump-resource-usage", path], text=True)
    return int(re.search(r"STACK:(\d+)", report)[1])


def _child():
    """Run by `test_interpreter` in a process of its own: the interpreter is chosen at import."""
    from ajour import attention
    from tests.conftest import assert_matches_oracle, random_qkv, random_table

    for number, (grid, head_dim) in enumerate(CASES):
        for dtype, levels in attended(number):
            torch.manual_seed(number)
            table = random_table(grid, heads=2, seed=number, levels=levels)
            q, k, v = random_qkv(grid, 2, head_dim, dtype, batch=2)
            out, lse = attention(q, k, v, table, backend="triton", return_lse=True)
            try:
                assert_matches_oracle(q, k, v, table, out, lse)
                verdict = "ok"
            except AssertionError as error:
                verdict = f"failed {error}"
            print(f"{number}-{str(dtype)[6:]}-{levels} {verdict}", flush=True)


def _mass_child():
    """Run by `test_the_mass_of_blocks_is_as_right_as_eager`, interpreted likewise."""
    from ajour.capture import block_mass
    from tests.conftest import random_qkv

    for number, (grid, head_dim) in enumerate(CASES):
        for dtype in (torch.float32, torch.float16):
            torch.manual_seed(number)
            q, k, _ = random_qkv(grid, 2, head_dim, dtype, batch=2)
            mass, eager = (
                block_mass(q, k, grid, "bisection", backend=backend)
                for backend in ("triton", "reference")
            )
            exact = block_mass(q.double(), k.double(), grid, "bisection", backend="reference")
            errors = [float((x - exact).abs().max()) for x in (mass, eager)]
            print(f"{number}-{str(dtype)[6:]} {errors[0]} {errors[1]}", flush=True)


def interpreted(child):
    env = os.environ | {"TRITON_INTERPRET": "1"}
    code = f"from tests.accel.test_triton import {child} as child; child()"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    return dict(line.split(" ", 1) for line in run.stdout.splitlines() if " " in line), run.stderr


@pytest.fixture(scope="module")
def verdicts():
    return interpreted("_child")


@pytest.mark.xdist_group("interpreter")
def test_the_mass_of_blocks_is_as_right_as_eager():
    results, stderr = interpreted("_mass_child")
    assert len(results) == 2 * len(CASES), stderr[-2000:]
    for name, errors in results.items():
        kernel, eager = map(float, errors.split())
        assert kernel <= 2 * eager + torch.finfo(torch.float32).eps, name


MASS_TARGETS = [
    (capability, *kind)
    for capability in SHARED_LIMIT
    for kind in (("bf16", 128), ("fp16", 64), ("fp32", 128))
] + [(86, "bf16", 256), (90, "fp16", 256), (80, "fp32", 64)]


@pytest.mark.parametrize(("capability", "dtype", "head_dim"), MASS_TARGETS)
def test_the_mass_kernel_compiles_offline(capability, dtype, head_dim, tmp_path):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ajour.backends.mass import compile_options, constants, mass_kernel

    exact = dtype == "fp32"
    fixed = constants(head_dim, 8, exact)
    kinds = dict.fromkeys(("q", "k"), f"*{dtype}") | dict.fromkeys(("tokens", "chosen"), "*i32")
    kinds |= {"mass": "*fp32", "scale": "fp32"}
    names = mass_kernel.arg_names
    signature = {n: "constexpr" if n in fixed else kinds.get(n, "i32") for n in names}
    attributes = aligned(signature, *(n for n in names if n.startswith(("q_", "k_"))))
    compiled = triton.compile(
        ASTSource(mass_kernel, signature, fixed, attributes),
        target=GPUTarget("cuda", capability, 32),
        options=compile_options(fixed["ROWS"], exact),
    )
    assert compiled.metadata.shared <= SHARED_LIMIT[capability] * 1024
    assert exact or "cp.async.cg.shared.global" in compiled.asm["ptx"]  # 16 bytes at a time
    assert stack(compiled.asm["cubin"], tmp_path / "mass.cubin") == 0


@pytest.mark.xdist_group("interpreter")
@pytest.mark.parametrize("number", range(len(CASES)))
def test_interpreter_matches_the_oracle(verdicts, number):
    results, stderr = verdicts
    for dtype, levels in attended(number):
        assert results.get(f"{number}-{str(dtype)[6:]}-{levels}", stderr[-2000:]) == "ok"


POINTERS = ("q", "k", "v", "pooled_k", "pooled_v", "out")
INT32 = ("slots", "valid", "offsets", "ids", "row_order", "head_rows")


TARGETS = [
    (capability, *kind, levels)
    for capability in SHARED_LIMIT
    for kind in (("bf16", 64), ("fp16", 128))
    for levels in (1, 4)
] + [(86, "bf16", 256, 4), (90, "bf16", 256, 1), (80, "fp32", 64, 1), (90, "fp32", 64, 1)]


@pytest.mark.parametrize(("capability", "dtype", "head_dim", "levels"), TARGETS)
def test_the_kernel_compiles_offline(capability, dtype, head_dim, levels):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ajour.backends.triton.kernel import attend_kernel

    channels = padded_channels(head_dim)
    config = choose_config(capability, 4 if dtype == "fp32" else 2, channels)
    source = (
        f"tensordesc<{dtype}[{config.tile}, {channels}]>" if config.descriptors else f"*{dtype}"
    )
    kinds = dict.fromkeys(POINTERS, f"*{dtype}") | dict.fromkeys(INT32, "*i32")
    kinds |= dict.fromkeys(("k_source", "v_source"), source) | {"lse": "*fp32", "scale": "fp32"}
    constants = {
        "D": head_dim, "DP": channels, "BLOCK": 128, "TILE": config.tile, "LEVELS": levels,
        "DESCRIPTORS": config.descriptors, "STAGES": config.stages,
        "PRECISION": "ieee" if dtype == "fp32" else "tf32",
    }  # fmt: skip
    names = attend_kernel.arg_names
    signature = {n: "constexpr" if n in constants else kinds.get(n, "i32") for n in names}
    compiled = triton.compile(
        ASTSource(attend_kernel, signature, constants, aligned(signature)),
        target=GPUTarget("cuda", capability, 32),
        options={
            "num_warps": config.warps,
            "num_stages": config.stages,
            "enable_fp_fusion": True,
        },
    )
    assert compiled.metadata.shared <= SHARED_LIMIT[capability] * 1024
    assert compiled.asm["cubin"]


PROLOGUE_TARGETS = [
    (capability, dtype, heads, norm, True)
    for capability in (80, 90, 120)
    for dtype, heads, norm in (
        ("bf16", 40, "all heads"), ("bf16", 24, "each head"), ("bf16", 24, "two weights"),
        ("fp16", 7, "two weights"),
    )
] + [(90, "fp32", 24, "two weights", True), (90, "bf16", 30, "", True),
     (90, "bf16", 24, "two weights", False)]  # fmt: skip


@pytest.mark.parametrize(("capability", "dtype", "heads", "norm", "rope"), PROLOGUE_TARGETS)
def test_the_prologue_compiles_offline(capability, dtype, heads, norm, rope, tmp_path):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ajour.backends.prologue import prologue_kernel, tile

    fixed = {"D": 128, "DP": 128, "BLOCK": 128, "ROPE": rope} | tile(
        heads, 128, norm == "all heads"
    )
    fixed["NORM"] = "each head" if norm == "two weights" else norm
    if norm != "two weights":
        fixed["second"] = None
    kinds = dict.fromkeys(("x", "weight", "second", "packed"), f"*{dtype}")
    kinds |= dict.fromkeys(("cosines", "sines"), "*fp32") | {"eps": "fp32"}
    kinds |= dict.fromkeys(("places", "row_order", "head_rows"), "*i32")
    names = prologue_kernel.arg_names
    signature = {n: "constexpr" if n in fixed else kinds.get(n, "i32") for n in names}
    compiled = triton.compile(
        ASTSource(
            prologue_kernel, signature, fixed, aligned(signature, "stride_batch", "stride_token")
        ),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": 8, "enable_fp_fusion": True},
    )
    assert compiled.metadata.shared <= SHARED_LIMIT[capability] * 1024
    assert stack(compiled.asm["cubin"], tmp_path / "prologue.cubin") == 0
