"""Whole pipelines of every family, without text encoders: steps, guidance, host reads."""

import inspect
import sys
from itertools import product

import pytest
import torch
from diffusers import CogVideoXDPMScheduler, SkyReelsV2DiffusionForcingPipeline

import ajour
from ajour.pipelines.session import session_of
from ajour.processors import family_of
from ajour.processors.host import read_once
from tests.processors.families import FULL, SPARSE, make, sparse
from tests.processors.pipelines import PIPELINES, STEPS, UNIPC, VIDEO, Run, unmasked

# Mochi turns autocast on in float32, of which torch warns on CPU; diffusers hands numpy a tensor,
# and uses a mixin that it calls deprecated.
pytestmark = pytest.mark.filterwarnings(
    "ignore:In CPU autocast", "ignore:__array__", "ignore:.LoraLoaderMixin. is deprecated"
)

READERS = ("valid_lengths", "image_raster", "video_raster", "packed_raster", "prefix_lengths")
READERS += ("any_nonzero", "hidden_runs", "text_lengths")


@pytest.mark.parametrize("name", list(PIPELINES))
def test_pipelines(name, monkeypatch):
    case = PIPELINES[name]
    pipe, reads = case.build(), []
    arguments = case.arguments()
    kinds = type(family_of(pipe.transformer)).__mro__
    modules = [sys.modules[name] for name in {kind.__module__ for kind in kinds}]
    for reader, module in product(READERS, modules):
        if hasattr(module, reader):
            function = getattr(module, reader).__wrapped__

            def read(tensor, function=function):
                reads.append(tensor)
                return function(tensor)

            monkeypatch.setattr(module, reader, read_once(read))

    def run():
        return pipe(**arguments, generator=torch.Generator().manual_seed(0))[0]

    def watched(session):
        """A run, the grids it has and the noise level of each of its steps."""
        grids, levels = set(), {}

        def see(module, *_):
            runtimes = [one for one in session.runtimes if one.transformer is module]
            grids.update(str(runtime.grid) for runtime in runtimes)
            levels[id(session.latest_run), session.step] = session.noise_levels[session.step]

        modules = [runtime.transformer for runtime in session.runtimes]
        hooks = [module.register_forward_pre_hook(see) for module in modules]
        out = run()
        for hook in hooks:
            hook.remove()
        assert all(runtime.grid is not None for runtime in session.runtimes)
        assert session.step is None  # runs go to the end
        return out, grids, levels

    stock = run()
    with sparse(pipe, FULL, strict=True):
        for run_reads in (case.reads, None):
            out, grids, levels = watched(session_of(pipe))
            torch.testing.assert_close(out, stock, rtol=1e-3, atol=1e-3)
            assert grids == case.grids
            assert len(levels) == case.steps
            first = list(levels.values())[:STEPS]
            assert first == sorted(first, reverse=True)
            assert first[0] > 0.6
            assert run_reads in (len(reads), None)
        assert len(reads) <= 2 * case.reads
    with sparse(pipe, SPARSE, strict=True):
        out, grids, _ = watched(session_of(pipe))
        assert not torch.allclose(out, stock, rtol=1e-3, atol=1e-3)
        assert grids == case.grids
    assert torch.equal(run(), stock)


def test_diffusion_forcing_runs_dense():
    case = Run(
        SkyReelsV2DiffusionForcingPipeline,
        lambda: make("SkyReelsV2"),
        UNIPC,
        lambda: VIDEO | unmasked("") | {"prompt": None, "guidance_scale": 1.0},
        set(),
    )
    pipe = case.build()
    arguments = case.arguments()

    def run():
        return pipe(**arguments, generator=torch.Generator().manual_seed(0))[0]

    stock = run()
    with sparse(pipe, SPARSE):
        assert torch.equal(run(), stock)
        assert "diffusion forcing" in ajour.summary(pipe).fallbacks[0]
    with sparse(pipe, SPARSE, strict=True), pytest.raises(RuntimeError, match="noise level"):
        run()


@pytest.mark.parametrize("name", ["set_timesteps", "step"])
def test_a_tracked_scheduler_keeps_its_signatures(name):
    scheduler = CogVideoXDPMScheduler()
    before = inspect.signature(getattr(scheduler, name))
    with sparse(make("CogVideoX"), FULL, scheduler=scheduler):
        assert "set_timesteps" in vars(scheduler)
        assert inspect.signature(getattr(scheduler, name)) == before
