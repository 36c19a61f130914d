"""A search on a tiny random pipeline, with times that are given, not measured."""

import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch

from ajour import Plan, TokenGrid, lower
from ajour.lowering import pools
from ajour.pipelines.machine import device_name
from ajour.search.engine import Search
from ajour.search.results import VerifiedPlan
from ajour.search.settings import Settings, Target
from ajour.search.solve.candidates import default_candidates
from ajour.search.timing.costs import Costs
from ajour.search.verify.runs import Quality
from ajour.search.workers import Workers
from tests.pipelines.conftest import (
    HEAD_DIM,
    HEADS,
    LAYERS,
    _parts,
    make_pipe,
    make_transformer,
    pipe,
)

__all__ = ["_parts", "make_pipe", "pipe"]

GRID = TokenGrid(3, 8, 7)
CALL = {
    "num_frames": 9, "height": 128, "width": 112, "num_inference_steps": 4, "guidance_scale": 1.0,
    "max_sequence_length": 32,
}  # fmt: skip
CANDIDATES = default_candidates(GRID)


WAN = {
    "transformer": "WanTransformer3DModel", "layers": LAYERS, "heads": HEADS, "head_dim": HEAD_DIM,
}  # fmt: skip


def given_costs(grid=GRID, model=WAN, passes=1):
    """A head costs its density, a layer nothing beyond its heads, and a pass as much again."""
    candidates = default_candidates(grid)
    heads = [lower([pattern], grid).density() for pattern in candidates.values()]
    size = float(model["layers"] * model["heads"])
    return {
        "names": list(candidates), "heads": heads, "layer": 0.0, "pooling": 0.0, "first": 0.0,
        "pooled": [pools(pattern, grid) for pattern in candidates.values()],
        "dense_pass": 2 * size, "other": size, "passes": passes,
        "held_out": [[1.0, 1.1], [2.0, 1.9]],
        "conditions": model | {
            "grid": "x".join(map(str, grid.shape)), "device": device_name(torch.device("cpu")),
            "dtype": "float32", "backend": "cpu",
        },
    }  # fmt: skip


def settings(kind="speedup", value=1.3, **changes):
    defaults = {
        "model": "tiny",
        "target": Target(kind, value),
        "calibration": ("a red circle", "a blue star"),
        "verification": ("a red square",),
        "call": CALL,
        "bands": 2,
        "costs": Costs.from_dict(given_costs()),
    }
    return Settings(**defaults | changes)


def verified_plan(choice=None, seconds=1.0, decibels=1.0, psnr_db=30.0, speedup=1.0):
    """A verified plan of given figures; passes were not timed."""
    quality = Quality(
        psnr_db=psnr_db, ssim=0.9, perceptual=0.0, banding=0.0, warp=0.0, dense_warp=0.0,
        run_seconds=1.0, dense_run_seconds=speedup, psnr_db_each=(psnr_db,),
    )  # fmt: skip
    return VerifiedPlan("", None, choice, "plan/0", seconds, decibels, quality)


def two_transformers(build):
    """A pipeline whose second transformer runs the last two of six steps."""
    parts = {"transformer": make_transformer(), "transformer_2": make_transformer(1)}
    return build(boundary_ratio=0.6, **parts)


TWO_SETTINGS = settings(
    call=CALL | {"num_inference_steps": 6}, bands=3, calibration=("a red circle", "a blue star")
)
"""Settings for `two_transformers`."""


def plans_of_two_processes(folder, kind):
    """The plans of the processes of a search of a pipeline, see `worker`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("worker.py")
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(folder), kind],
            env={
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
                "RANK": str(rank), "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1",
                "GLOO_SOCKET_IFNAME": "lo",
            },
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return [Plan.load(folder / f"plan-{rank}.json") for rank in range(2)]


def run_search(pipe, folder, asked, resume=False, workers=None):
    """The outcome of a whole search."""
    workers = workers or Workers()
    with closing(workers.open(folder, asked.to_dict(), resume)) as work:
        return Search(pipe, asked, work, workers).run()


def what_it_does(plan):
    """A plan without its provenance, some of which is measured time."""
    return {key: value for key, value in plan.to_dict().items() if key != "provenance"}


@pytest.fixture(scope="session")
def plain(_parts, tmp_path_factory):
    """The outcome of an uninterrupted search, and its folder."""
    fresh = make_pipe.__wrapped__(_parts)()
    folder = tmp_path_factory.mktemp("search") / "work"
    return run_search(fresh, folder, settings()), folder
