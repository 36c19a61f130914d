"""Which step a forward pass belongs to: of the pipeline that drives it, if several share it."""

from __future__ import annotations

import sys
import weakref
from typing import Any

import torch

from ajour.pipelines.steps import Run, follow, run_of

TRANSFORMERS = ("transformer", "transformer_2", "transformer_ref", "unconditional_transformer")
"""Attributes of diffusers pipelines that hold transformers."""

HOLDERS = ("self", "components")
"""Names of pipelines in frames of their code; modular pipelines' blocks get `components`."""


def transformers_of(holder: Any) -> list[torch.nn.Module]:
    """The transformers that a pipeline holds; none if it is no pipeline."""
    attributes = getattr(holder, "__dict__", {})
    parts = (attributes.get(name) for name in TRANSFORMERS)
    return [part for part in parts if isinstance(part, torch.nn.Module)]


def driver_of(transformer: torch.nn.Module) -> Any:
    """The pipeline whose code is calling the transformer now; None if no pipeline is.

    Only the call stack says so: a pass has no argument that names its pipeline or scheduler.
    """
    frame = sys._getframe(1)
    while frame is not None:
        names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
        if names[:1] == ("self",):
            for name in HOLDERS:
                holder = frame.f_locals.get(name) if name in names else None
                drives = getattr(holder, "__dict__", {}).get("scheduler") is not None
                parts = transformers_of(holder) if drives else []
                # torch.compile(transformer) holds it as `_orig_mod`
                if any(transformer in (part, getattr(part, "_orig_mod", None)) for part in parts):
                    return holder
        frame = frame.f_back  # type: ignore[assignment]
    return None


class UnknownStep(Exception):
    """Raised by `StepLocator.locate`: why the step of a pass is not known."""


class StepLocator:
    """Says which step of which run a forward pass of one transformer belongs to.

    It follows the scheduler of the pipeline whose code calls the transformer. In a loop of the
    user's own that is the scheduler of the enabled pipeline, or the one given to `enable`.

    Args:
        scheduler: the scheduler given to `enable`, or that of the pipeline.
        pipe: the enabled pipeline, or None for a bare transformer.

    Raises:
        TypeError: if no noise level can be read from the scheduler.
    """

    def __init__(self, scheduler: Any, pipe: Any = None) -> None:
        self._given = scheduler
        self._pipe = (lambda: None) if pipe is None else weakref.ref(pipe)
        self._followers = weakref.WeakSet([follow(scheduler, self)])
        self._passes: weakref.WeakKeyDictionary[Run, PassCount] = weakref.WeakKeyDictionary()

    @property
    def latest(self) -> Run | None:
        """The present run of the scheduler that own loops follow."""
        return run_of(self._scheduler(None))

    def locate(self, transformer: torch.nn.Module, timestep: Any) -> tuple[Run, int]:
        """The run and the index of its step that a pass belongs to.

        Args:
            transformer: the transformer that is called.
            timestep: its timestep argument.

        Raises:
            UnknownStep: if the step cannot be known.
        """
        scheduler = self._scheduler(driver_of(transformer))
        name = type(scheduler).__name__
        try:
            follower = follow(scheduler, self)
        except TypeError as error:
            raise UnknownStep(str(error)) from error
        self._followers.add(follower)
        run = follower.run
        if run is None:
            raise UnknownStep(
                f"no set_timesteps of the {name} was seen, so the step is unknown; call it after "
                "enable(), or run the pipeline from its start"
            )
        step = run.step
        if step is None:
            raise UnknownStep(
                f"the {name} has done all its steps, and no set_timesteps came before this pass"
            )
        if not self._passes.setdefault(run, PassCount()).belongs(step, timestep):
            raise UnknownStep(
                f"the timestep changed without a call of {name}.step, so the step is unknown; "
                "a loop of your own has to call set_timesteps and step of its scheduler"
            )
        return run, step

    def release(self) -> None:
        """Stop following."""
        for follower in self._followers:
            follower.release(self)

    def _scheduler(self, driver: Any) -> Any:
        for pipe in (driver, self._pipe()):
            scheduler = getattr(pipe, "scheduler", None)
            if scheduler is not None:
                return scheduler
        return self._given


class PassCount:
    """Notices in a run that passes go on to another timestep although `step` is not called.

    Timesteps are compared only where a step has more passes than any step before it, so a loop
    over a pipeline's steps reads none of them from the GPU, or one in its first step.
    """

    def __init__(self) -> None:
        self._step: int | None = None
        self._timestep: Any = None
        self._passes = 0
        self._most = 0
        self._lost = False

    def belongs(self, step: int, timestep: Any) -> bool:
        """Whether a pass can belong to a step; once False, it is so for the rest of the run."""
        if step != self._step:
            self._most = max(self._most, self._passes)
            self._step, self._timestep, self._passes = step, timestep, 0
        self._passes += 1
        if self._passes > max(self._most, 1) and not self._lost:
            self._lost = not _equal(timestep, self._timestep)
        return not self._lost


def _equal(one: Any, other: Any) -> bool:
    """Whether two timesteps, as numbers or tensors of any shape, are of the same noise level."""
    if one is other:
        return True
    first, second = (
        torch.as_tensor(x, dtype=torch.float64, device="cpu").aminmax() for x in (one, other)
    )
    return bool(first.min == second.min and first.max == second.max)
