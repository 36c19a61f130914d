"""`enable`, `disable` and `sparse`: one line on, one line off."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ajour.names import BACKENDS
from ajour.pipelines.auto import SPEEDS, Auto, model_of
from ajour.pipelines.compiling import CompiledBlocks
from ajour.pipelines.hub import load_plan
from ajour.pipelines.locate import StepLocator
from ajour.pipelines.locate import transformers_of as _parts
from ajour.pipelines.runtime import TransformerRuntime
from ajour.pipelines.session import Session, session_of, sessions_of
from ajour.pipelines.switching import switching
from ajour.plan import Plan, PlanError
from ajour.processors import supported_transformers

if TYPE_CHECKING:
    from collections.abc import Iterator


def enable(
    pipe: Any,
    plan: Plan | dict[str, Any] | str | Path | Auto = "auto",
    *,
    density: float | None = None,
    speed: str | None = None,
    reuse: bool = True,
    scheduler: Any = None,
    backend: str | None = None,
    strict: bool = False,
    trim: bool = False,
    compile: bool = False,
) -> None:
    """Run a pipeline's self-attention sparsely.

    Any thread may call it at any time. Of two calls at once, the second raises.

    Args:
        pipe: a diffusers pipeline with a supported transformer, or such a transformer itself.
        plan: a `Plan`, its JSON as a dict, the path of a plan file, or a repository on the Hugging
            Face Hub that holds a `plan.json`. `auto`, the default, chooses every head's pattern
            from the last dense step of each run; an `Auto` sets how.
        density: only for `auto`: kept share of dense attention's tiles, mean over sparse steps.
        speed: only for `auto`, instead of a density: `careful`, `balanced` or `fast`.
        reuse: whether steps may be reused; False computes every step.
        scheduler: only needed with a bare transformer: the scheduler of its denoising loop.
        backend: one of `ajour.BACKENDS`; None chooses the fastest that can run.
        strict: raise instead of running dense where the plan cannot be followed.
        trim: where a model masks its text padding, leave it out of dense steps too. That is exact,
            and faster than stock attention with a mask, but no longer bit-identical to stock.
        compile: compile the transformer's repeated blocks with torch.compile, for all sizes;
            `disable` undoes it.

    Raises:
        PlanError: if the plan is malformed or for another model.
        TypeError: if the transformer or scheduler is not supported.
        ValueError: if the backend or speed is unknown, or a density is out of range or given with
            a plan, or if the transformer is to be compiled and is so already.
        RuntimeError: if already enabled. In every case nothing was changed.
    """
    plan = resolve_plan(plan, density, speed, reuse)
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; backends are {', '.join(BACKENDS)}")
    transformers = transformers_of(pipe)
    _check_not_enabled(pipe)  # before the locks: a pass that calls this must not wait for them
    models = [model_of(transformer) for transformer in transformers]  # raises if not supported
    if isinstance(plan, Plan):
        for model in models:
            plan.check_model(**model)
    owner = None if isinstance(pipe, torch.nn.Module) else pipe
    scheduler = scheduler if scheduler is not None else getattr(owner, "scheduler", None)
    if scheduler is None:
        raise TypeError(
            "a bare transformer has no scheduler, so the noise level is unknown; "
            "pass enable(transformer, plan, scheduler=...)"
        )
    with switching(transformers):
        _check_not_enabled(pipe)
        blocks = CompiledBlocks(transformers) if compile else None
        locators = [StepLocator(scheduler, owner) for _ in transformers]
        runtimes = [
            TransformerRuntime(transformer, plan, locator, backend, strict, trim)
            for transformer, locator in zip(transformers, locators, strict=True)
        ]
        if blocks is not None:
            blocks.compile()
        Session(runtimes, list({id(x): x for x in (pipe, *transformers)}.values()), blocks)


def _check_not_enabled(pipe: Any) -> None:
    if is_enabled(pipe):
        raise RuntimeError("already enabled; call ajour.disable() with the same argument first")


def resolve_plan(
    plan: Any, density: float | None = None, speed: str | None = None, reuse: bool = True
) -> Plan | Auto:
    """What `enable` makes of these arguments: a plan, or how to choose one.

    Raises:
        PlanError: if the plan cannot be read or is malformed.
        ValueError: if the speed is unknown, or a density is out of range or given with a plan.
    """
    if speed is not None:
        if speed not in SPEEDS:
            raise ValueError(f"unknown speed {speed!r}; speeds are {', '.join(SPEEDS)}")
        if density is not None:
            raise ValueError("give a density or a speed, not both")
    if plan == "auto":
        chosen = SPEEDS[speed or "balanced"]
        return Auto(
            chosen.density if density is None else density, reuse=chosen.reuse if reuse else 0
        )
    if density is not None or speed is not None:
        raise ValueError('a density or speed is for plan="auto"; a plan has its own densities')
    if isinstance(plan, str | Path):
        plan = load_plan(plan)
    elif isinstance(plan, dict):
        plan = Plan.from_dict(plan)
    if isinstance(plan, Plan):
        return plan if reuse else replace(plan, schedule=plan.schedule.without_reuse())
    if isinstance(plan, Auto):
        return plan if reuse else replace(plan, reuse=0)
    raise PlanError(f'a plan is "auto", a Plan, a dict or a path, got {type(plan).__name__}')


def disable(pipe: Any) -> None:
    """Undo `enable`: from here on bit-identical to never having been enabled.

    Takes the pipeline or any of its transformers, whatever `enable` got. All that the same call of
    `enable` switched on is switched off.

    Any thread may call it. It waits until a forward pass of another thread has ended; the rest of
    that run is stock. From within a forward pass, for example from a hook, it is refused.

    Raises:
        RuntimeError: if not enabled, or if called in a forward pass. Then nothing was changed.
    """
    _check_can_release(pipe)  # before the locks: a pass must not wait for who waits for its end
    with switching(transformers_of(pipe)):
        for session in _check_can_release(pipe):
            session.release()


def _check_can_release(pipe: Any) -> list[Session]:
    session_of(pipe)  # raises if not enabled
    sessions = sessions_of(pipe)
    for session in sessions:
        for runtime in session.runtimes:
            runtime.check_between_passes()
    return sessions


@contextmanager
def sparse(
    pipe: Any, plan: Plan | dict[str, Any] | str | Path | Auto = "auto", **options: Any
) -> Iterator[Any]:
    """`enable`, with the same arguments, within a `with` block; undone also after an exception."""
    enable(pipe, plan, **options)
    try:
        yield pipe
    finally:
        disable(pipe)


def current_plan(pipe: Any) -> Plan:
    """The plan that an enabled pipeline runs now; with `auto` that of the latest run, to be saved.

    Of two transformers, it is the plan of the transformer that ran last.

    Raises:
        RuntimeError: if not enabled, or if nothing has been chosen yet.
    """
    runtimes = sorted(session_of(pipe).runtimes, key=lambda runtime: runtime.last_pass)
    plans = [runtime.plan for runtime in runtimes if runtime.plan is not None]
    if plans:
        return plans[-1]
    raise RuntimeError("no plan has been chosen yet: that happens in the last dense step of a run")


def is_enabled(pipe: Any) -> bool:
    """Whether `enable` holds on a pipeline, on one of its transformers, or on a transformer."""
    return bool(sessions_of(pipe))


def transformers_of(pipe: Any) -> list[torch.nn.Module]:
    """The transformers of a pipeline (Wan 2.2 has two), or the module itself.

    Raises:
        TypeError: if there is none.
    """
    if isinstance(pipe, torch.nn.Module):
        return [pipe]
    modules = _parts(pipe)
    if not modules:
        raise TypeError(
            f"{type(pipe).__name__} has no transformer; supported transformers are "
            f"{', '.join(supported_transformers())}"
        )
    return modules
