"""The main job: one prompt twice at the same seed, dense and sparse, timed and compared."""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from ajour.pipelines.banding import banding
from ajour.pipelines.compiling import compiled
from ajour.pipelines.devices import pipeline_device
from ajour.pipelines.enable import current_plan, is_enabled, sparse
from ajour.pipelines.machine import device_name, versions
from ajour.pipelines.measures import explain
from ajour.pipelines.pictures import pictures
from ajour.pipelines.quality import perceptual, psnr, reported, ssim
from ajour.pipelines.session import session_of
from ajour.pipelines.steps import watch_steps
from ajour.pipelines.stopwatch import now
from ajour.pipelines.summary import summary
from ajour.schedule import DENSE, REUSE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ajour.pipelines.auto import Auto
    from ajour.plan import Plan

    OnStep = Callable[[str, int, torch.Tensor], None]


@dataclass(frozen=True)
class Sample:
    """One run of a pipeline.

    Attributes:
        video: (F,H,W,3) in [0,1].
        seconds: from the call to the end of the last denoising step, without decoding and without
            what `on_step` took.
        phases: the schedule's assignment of every step; all `dense` without a plan.
    """

    video: NDArray[np.float32]
    seconds: float
    phases: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What `ajour generate` measured.

    Attributes:
        seed: of the initial noise, on the CPU.
        grid: token grid, for example 13x16x16.
        density: kept share of dense attention's tiles, mean over layers and sparse steps.
        mean_density: the same over all steps; dense steps count as 1, reused steps as 0.
        dense_seconds: denoising time without the plan, median over the pairs of runs.
        sparse_seconds: denoising time with it, same.
        speedup: their ratio.
        psnr_db: of the sparse video against the dense video, 99 if they are equal.
        ssim: same as `psnr_db`.
        perceptual: perceptual distance of the sparse video from the dense video, 0 to 1.
        banding: bands in flat regions of the sparse video, in levels of 255.
        backend: of the sparse attention.
        compiled: whether the transformer's blocks were compiled, in both runs.
        fallbacks: why layers ran dense against the plan, if any did.
        dense_seconds_each: denoising time without the plan in each pair of runs.
        sparse_seconds_each: denoising time with it, same.
    """

    prompt: str
    seed: int
    steps: int
    grid: str
    density: float
    mean_density: float
    sparse_steps: int
    reused_steps: int
    dense_seconds: float
    sparse_seconds: float
    speedup: float
    psnr_db: float
    ssim: float
    perceptual: float
    banding: float
    backend: str
    compiled: bool
    device: str
    fallbacks: tuple[str, ...]
    versions: dict[str, str]
    dense_seconds_each: tuple[float, ...]
    sparse_seconds_each: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; `measures` explains the figures of quality."""
        figures = asdict(self)
        figures |= {name: list(value) for name, value in figures.items() if type(value) is tuple}
        return figures | {"measures": explain(figures)}


@dataclass(frozen=True)
class Comparison:
    """Both samples, their report, and the plan that ran, which `auto` chose on the way."""

    dense: Sample
    sparse: Sample
    report: Report
    plan: Plan


def call_parameters(pipe: Any) -> Mapping[str, inspect.Parameter]:
    """The parameters of a pipeline's call, by name."""
    return inspect.signature(pipe.__call__).parameters


def needed_arguments(pipe: Any) -> list[str]:
    """The arguments without which a pipeline cannot be called, besides a prompt."""
    return [
        parameter.name
        for parameter in call_parameters(pipe).values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and parameter.name != "prompt"
    ]


def check_promptable(pipe: Any) -> None:
    """Raise TypeError unless a prompt is all that a pipeline needs."""
    if missing := needed_arguments(pipe):
        raise TypeError(
            f"{type(pipe).__name__} needs more than a prompt ({', '.join(missing)}); use "
            "ajour.enable(pipe) and call it yourself"
        )


def sample(
    pipe: Any,
    prompt: str,
    seed: int,
    label: str = "denoising",
    on_step: OnStep | None = None,
    **options: Any,
) -> Sample:
    """Run a pipeline once and time its denoising.

    Args:
        pipe: a diffusers pipeline of videos, or of images (videos of one frame), enabled or not.
        prompt: the prompt.
        seed: seed of the initial noise.
        label: the progress bar's text.
        on_step: called after each step with the label, the step's index and the latents, in the
            layout that the scheduler gets. What it raises ends the run.
        options: further arguments of the pipeline's call.

    Raises:
        TypeError: if the pipeline has no scheduler that says when a step ends.
    """

    def run() -> Any:
        generator = torch.Generator().manual_seed(seed)
        return pipe(prompt=prompt, generator=generator, output_type="np", **options)

    return timed_sample(pipe, run, label, on_step)


def timed_sample(
    pipe: Any, run: Callable[[], Any], label: str, on_step: OnStep | None = None
) -> Sample:
    """Run a pipeline once by a function and time its denoising; see `sample`.

    Args:
        pipe: the pipeline, enabled or not.
        run: runs the pipeline and returns its pictures, see `pictures`.
        label: see `sample`.
        on_step: see `sample`.

    Raises:
        TypeError: if the pipeline has no scheduler that says when a step ends, or the function
            returns no pictures.
    """
    scheduler = getattr(pipe, "scheduler", None)
    if not hasattr(scheduler, "step"):
        raise TypeError(
            f"{type(pipe).__name__} has no scheduler with a step, so its denoising cannot be "
            "timed; use ajour.enable(pipe) and call it yourself"
        )
    device = pipeline_device(pipe)
    end = start = now(device)
    steps = 0

    def note(_: Any, latents: torch.Tensor) -> None:
        nonlocal start, end, steps
        end = now(device)
        if on_step is not None:
            on_step(label, steps, latents)
            waited = now(device) - end
            start, end = start + waited, end + waited
        steps += 1

    if hasattr(pipe, "set_progress_bar_config"):
        pipe.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}) | {"desc": label})
    with watch_steps(scheduler, note):
        output = run()
    phases = session_of(pipe).steps if is_enabled(pipe) else (DENSE,) * steps
    return Sample(pictures(output), end - start, phases)


def compare(
    pipe: Any,
    plan: Plan | Auto | str | Path,
    prompt: str,
    seed: int,
    backend: str | None = None,
    on_step: OnStep | None = None,
    compile: bool = False,
    repeats: int = 1,
    on_run: Callable[[str], None] | None = None,
    **options: Any,
) -> Comparison:
    """Run a pipeline without and with a plan at the same seed.

    On a GPU and with `compile` each run is preceded by an untimed one, so that nothing is compiled
    in the timing.

    Args:
        pipe: a supported diffusers pipeline, not enabled.
        plan: the plan, or how to choose one.
        prompt: the prompt.
        seed: seed of the initial noise.
        backend: the operator's backend; None chooses.
        on_step: see `sample`; called with the labels `dense` and `sparse`.
        compile: compile the transformer's blocks in both arms.
        repeats: pairs of a dense and a sparse run, for medians of the times.
        on_run: called with a line about each run, before it.
        options: further arguments of the pipeline's call.
    """
    device = pipeline_device(pipe)
    warm = device.type == "cuda" or compile

    def run(label: str, number: int) -> Sample:
        of = f" {number} of {repeats}" if repeats > 1 else ""
        for name in [f"{label} run to warm up"] * warm + [f"{label} run{of}"]:
            if on_run is not None:
                on_run(name)
            made = sample(pipe, prompt, seed, label, on_step, **options)
        return made

    dense_runs, sparse_runs = [], []
    with compiled(pipe, compile):
        for number in range(1, repeats + 1):
            dense_runs.append(run("dense", number))
            with sparse(pipe, plan, backend=backend):
                sparse_runs.append(run("sparse", number))
                state, chosen_plan = summary(pipe), current_plan(pipe)
    dense, sparse_run = dense_runs[-1], sparse_runs[-1]
    dense_seconds, sparse_seconds = (
        tuple(one.seconds for one in runs) for runs in (dense_runs, sparse_runs)
    )
    sparse_steps = [name for name in sparse_run.phases if name not in (DENSE, REUSE)]
    report = Report(
        prompt=prompt,
        seed=seed,
        steps=len(dense.phases),
        grid=state.grid or "",
        density=state.mean_density(sparse_steps),
        mean_density=state.mean_density(sparse_run.phases),
        sparse_steps=len(sparse_steps),
        reused_steps=sparse_run.phases.count(REUSE),
        dense_seconds=median(dense_seconds),
        sparse_seconds=median(sparse_seconds),
        speedup=median(dense_seconds) / median(sparse_seconds),
        psnr_db=reported(psnr(sparse_run.video, dense.video)),
        ssim=ssim(sparse_run.video, dense.video),
        perceptual=perceptual(sparse_run.video, dense.video),
        banding=banding(sparse_run.video, dense.video),
        backend=state.backend,
        compiled=compile,
        device=device_name(device),
        fallbacks=state.fallbacks,
        versions=versions(),
        dense_seconds_each=dense_seconds,
        sparse_seconds_each=sparse_seconds,
    )
    return Comparison(dense, sparse_run, report, chosen_plan)
