"""`enable`, `disable` and `sparse`: one line on, one line off."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ajour.backends import BACKENDS
from ajour.pipelines.runtime import TransformerRuntime
from ajour.pipelines.steps import StepTracker
from ajour.plan import Plan, PlanError
from ajour.processors import family_of, supported_transformers

if TYPE_CHECKING:
    from collections.abc import Iterator

_ATTRIBUTE = "_ajour"


class Session:
    """What `enable` leaves on a pipeline: the tracker and one runtime per transformer."""

    def __init__(self, tracker: StepTracker, runtimes: list[TransformerRuntime]) -> None:
        self.tracker = tracker
        self.runtimes = runtimes

    def phases(self) -> tuple[str, ...]:
        """The schedule's assignment of every step done since the last `set_timesteps`."""
        schedule = self.runtimes[0].plan.schedule
        return tuple(schedule.at(level) for level in self.tracker.levels_done)

    def release(self) -> None:
        """Undo everything."""
        for runtime in self.runtimes:
            runtime.release()
        self.tracker.release()


def enable(
    pipe: Any,
    plan: Plan | dict[str, Any] | str | Path,
    *,
    scheduler: Any = None,
    backend: str | None = None,
    strict: bool = False,
) -> None:
    """Run a pipeline's self-attention sparsely, as a plan says.

    Args:
        pipe: a diffusers pipeline with a supported transformer, or such a transformer itself.
        plan: a `Plan`, its JSON as a dict, or the path of a plan file.
        scheduler: needed with a bare transformer only: the scheduler that drives it.
        backend: one of `ajour.BACKENDS`; None chooses the fastest that can run.
        strict: raise instead of running dense where the plan cannot be followed.

    Raises:
        PlanError: if the plan is malformed or for another model.
        TypeError: if the transformer or scheduler is not supported.
        ValueError: if the backend is unknown.
        RuntimeError: if already enabled. In every case nothing was changed.
    """
    if isinstance(plan, str | Path):
        plan = Plan.load(plan)
    elif isinstance(plan, dict):
        plan = Plan.from_dict(plan)
    elif not isinstance(plan, Plan):
        raise PlanError(f"a plan is a Plan, a dict or a path, got {type(plan).__name__}")
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; backends are {', '.join(BACKENDS)}")
    transformers = transformers_of(pipe)
    for transformer in transformers:
        if is_enabled(pipe) or is_enabled(transformer):
            raise RuntimeError("already enabled; call ajour.disable() first")
        family = family_of(transformer)
        layers = family.layers(transformer)
        plan.check_model(
            type(transformer).__name__,
            len(layers),
            layers[0].heads,
            family.head_dim(transformer),
        )
    scheduler = scheduler if scheduler is not None else getattr(pipe, "scheduler", None)
    if scheduler is None:
        raise TypeError(
            "a bare transformer has no scheduler, so the noise level is unknown; "
            "pass enable(transformer, plan, scheduler=...)"
        )
    tracker = StepTracker(scheduler)
    runtimes = [
        TransformerRuntime(transformer, plan, tracker, backend, strict)
        for transformer in transformers
    ]
    session = Session(tracker, runtimes)
    for owner in {id(x): x for x in (pipe, *transformers)}.values():
        object.__setattr__(owner, _ATTRIBUTE, session)


def disable(pipe: Any) -> None:
    """Undo `enable`: from here on bit-identical to never having been enabled.

    Raises:
        RuntimeError: if not enabled.
    """
    session = session_of(pipe)
    session.release()
    owners = [pipe, *(runtime.transformer for runtime in session.runtimes)]
    for owner in owners:
        owner.__dict__.pop(_ATTRIBUTE, None)


@contextmanager
def sparse(
    pipe: Any,
    plan: Plan | dict[str, Any] | str | Path,
    *,
    scheduler: Any = None,
    backend: str | None = None,
    strict: bool = False,
) -> Iterator[Any]:
    """`enable` within a `with` block; undone on exit, also after an exception."""
    enable(pipe, plan, scheduler=scheduler, backend=backend, strict=strict)
    try:
        yield pipe
    finally:
        disable(pipe)


def is_enabled(pipe: Any) -> bool:
    """Whether `enable` holds on a pipeline or transformer."""
    return pipe.__dict__.get(_ATTRIBUTE) is not None


def session_of(pipe: Any) -> Session:
    """The session that `enable` left.

    Raises:
        RuntimeError: if not enabled.
    """
    if not is_enabled(pipe):
        raise RuntimeError("not enabled; call ajour.enable(pipe, plan) first")
    session: Session = pipe.__dict__[_ATTRIBUTE]
    return session


def transformers_of(pipe: Any) -> list[torch.nn.Module]:
    """The transformers of a pipeline (Wan 2.2 has two), or the module itself.

    Raises:
        TypeError: if there is none.
    """
    if isinstance(pipe, torch.nn.Module):
        return [pipe]
    found = [getattr(pipe, name, None) for name in ("transformer", "transformer_2")]
    modules = [module for module in found if module is not None]
    if not modules:
        raise TypeError(
            f"{type(pipe).__name__} has no transformer; supported transformers are "
            f"{', '.join(supported_transformers())}"
        )
    return modules


def supported_pipelines() -> list[str]:
    """Names of the diffusers pipelines whose transformer is supported."""
    return [
        "CogVideoXFunControlPipeline",
        "CogVideoXImageToVideoPipeline",
        "CogVideoXPipeline",
        "CogVideoXVideoToVideoPipeline",
        "FluxControlImg2ImgPipeline",
        "FluxControlInpaintPipeline",
        "FluxControlNetImg2ImgPipeline",
        "FluxControlNetInpaintPipeline",
        "FluxControlNetPipeline",
        "FluxControlPipeline",
        "FluxFillPipeline",
        "FluxImg2ImgPipeline",
        "FluxInpaintPipeline",
        "FluxKontextInpaintPipeline",
        "FluxKontextPipeline",
        "FluxPipeline",
        "HunyuanSkyreelsImageToVideoPipeline",
        "HunyuanVideoImageToVideoPipeline",
        "HunyuanVideoPipeline",
        "LTXConditionPipeline",
        "LTXI2VLongMultiPromptPipeline",
        "LTXImageToVideoPipeline",
        "LTXPipeline",
        "MochiPipeline",
        "WanImageToVideoPipeline",
        "WanPipeline",
        "WanVideoToVideoPipeline",
    ]
