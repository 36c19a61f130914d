"""Following a scheduler: which noise level the next forward pass is at, without touching a GPU."""

from __future__ import annotations

import types
import weakref
from functools import wraps
from typing import Any

import torch

from ajour.schedule import DENSE


class StepTracker:
    """Counts denoising steps by wrapping a scheduler's `set_timesteps` and `step`.

    The wrappers are bound methods set on the scheduler instance, so a deep copy of the scheduler
    binds them to the copy, whose steps do not count. They hold the tracker weakly.

    Attributes:
        runs: calls of `set_timesteps` so far.
        steps_done: calls of `step` since the last of them.
        ran: by step index, the assignment that ran; filled by the transformers' runtimes.

    Args:
        scheduler: any diffusers scheduler with `sigmas` or `alphas_cumprod`.
        pipe: the pipeline that it belongs to, if there is one: a scheduler that is put in its
            place later is followed from its next forward pass on.

    Raises:
        TypeError: if the scheduler has neither, so that no noise level can be read.
    """

    def __init__(self, scheduler: Any, pipe: Any = None) -> None:
        self.runs = 0
        self.steps_done = 0
        self.ran: dict[int, str] = {}
        self._levels: list[float] = []
        self._pipe = (lambda: None) if pipe is None else weakref.ref(pipe)
        self._wrap(scheduler)

    @property
    def noise_level(self) -> float:
        """Noise level of the next forward pass: 1 is pure noise, 0 is clean.

        Before the first `set_timesteps` it is 1.
        """
        if not self._levels:
            return 1.0
        return self._levels[min(self.index, len(self._levels) - 1)]

    @property
    def levels(self) -> list[float]:
        """Noise levels of all steps since the last `set_timesteps`."""
        return self._levels

    @property
    def levels_done(self) -> list[float]:
        """Noise levels of the steps done since the last `set_timesteps`."""
        return self._levels[self.index - self.steps_done : self.index]

    @property
    def step(self) -> tuple[int, int]:
        """Which run and which of its steps the next forward pass belongs to."""
        return self.runs, self.index

    def phases(self) -> tuple[str, ...]:
        """The assignment that ran in every step done since the last `set_timesteps`."""
        done = range(self.index - self.steps_done, self.index)
        return tuple(self.ran.get(index, DENSE) for index in done)

    @property
    def index(self) -> int:
        """Index of the next step within the scheduler's timesteps."""
        scheduler = self._scheduler()
        begin = getattr(scheduler, "begin_index", None) or 0
        return begin + self.steps_done

    def sync(self) -> None:
        """Follow the scheduler that the pipeline has now, if it is another one."""
        scheduler = getattr(self._pipe(), "scheduler", None)
        if scheduler is None or scheduler is self._scheduler():
            return
        self.release()
        self._wrap(scheduler)
        if scheduler.timesteps is not None:
            self._start(scheduler)

    def release(self) -> None:
        """Take the wrappers off the scheduler."""
        scheduler = self._scheduler()
        if scheduler is not None:
            for name in ("set_timesteps", "step"):
                scheduler.__dict__.pop(name, None)

    def _start(self, scheduler: Any) -> None:
        self.runs += 1
        self.steps_done = 0
        self.ran = {}
        self._levels = noise_levels(scheduler)

    def _wrap(self, scheduler: Any) -> None:
        if not hasattr(scheduler, "sigmas") and not hasattr(scheduler, "alphas_cumprod"):
            raise TypeError(
                f"{type(scheduler).__name__} has neither sigmas nor alphas_cumprod, so its noise "
                "level is unknown; use a scheduler that has one of them"
            )
        self._scheduler = weakref.ref(scheduler)
        tracker = weakref.ref(self)
        kind = type(scheduler)

        @wraps(kind.set_timesteps)  # pipelines read the signatures of both methods
        def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = kind.set_timesteps(self, *args, **kwargs)
            alive = tracker()
            if alive is not None and alive._scheduler() is self:
                alive._start(self)
            return result

        @wraps(kind.step)
        def step(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = kind.step(self, *args, **kwargs)
            alive = tracker()
            if alive is not None and alive._scheduler() is self:
                alive.steps_done += 1
            return result

        scheduler.set_timesteps = types.MethodType(set_timesteps, scheduler)
        scheduler.step = types.MethodType(step, scheduler)


def noise_levels(scheduler: Any) -> list[float]:
    """Noise level n / (s + n) of every timestep, where x = s * data + n * noise.

    Args:
        scheduler: after `set_timesteps`.

    Returns:
        One value per timestep, for flow matching its sigma.
    """
    count = len(scheduler.timesteps)
    config = scheduler.config
    if hasattr(scheduler, "sigmas"):
        sigmas = torch.as_tensor(scheduler.sigmas).double()[:count].cpu()
        if getattr(config, "invert_sigmas", False):  # Mochi counts from noise to data
            sigmas = 1 - sigmas
        flow = float(sigmas.max()) <= 1 + 1e-6  # other schedules start far above 1
        return list((sigmas if flow else sigmas / (1 + sigmas)).tolist())
    timesteps = torch.as_tensor(scheduler.timesteps).long().cpu()
    kept = scheduler.alphas_cumprod.double().cpu()[timesteps]
    data, noise = kept.sqrt(), (1 - kept).sqrt()
    return list((noise / (data + noise)).tolist())
