"""Following a scheduler: which noise level the next forward pass is at, without touching a GPU."""

from __future__ import annotations

import types
import weakref
from functools import wraps
from typing import Any

import torch


class StepTracker:
    """Counts denoising steps by wrapping a scheduler's `set_timesteps` and `step`.

    The wrappers are bound methods set on the scheduler instance, so a deep copy of the scheduler
    binds them to the copy, and they hold the tracker weakly.

    Args:
        scheduler: any diffusers scheduler with `sigmas` or `alphas_cumprod`.

    Raises:
        TypeError: if the scheduler has neither, so that no noise level can be read.
    """

    def __init__(self, scheduler: Any) -> None:
        if not hasattr(scheduler, "sigmas") and not hasattr(scheduler, "alphas_cumprod"):
            raise TypeError(
                f"{type(scheduler).__name__} has neither sigmas nor alphas_cumprod, so its noise "
                "level is unknown; use a scheduler that has one of them"
            )
        self.steps_done = 0
        self._levels: list[float] = []
        self._scheduler = weakref.ref(scheduler)
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
    def index(self) -> int:
        """Index of the next step within the scheduler's timesteps."""
        scheduler = self._scheduler()
        begin = getattr(scheduler, "begin_index", None) or 0
        return begin + self.steps_done

    def release(self) -> None:
        """Take the wrappers off the scheduler."""
        scheduler = self._scheduler()
        if scheduler is not None:
            for name in ("set_timesteps", "step"):
                scheduler.__dict__.pop(name, None)

    def _wrap(self, scheduler: Any) -> None:
        tracker = weakref.ref(self)
        kind = type(scheduler)

        @wraps(kind.set_timesteps)  # pipelines read the signatures of both methods
        def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = kind.set_timesteps(self, *args, **kwargs)
            if (alive := tracker()) is not None:
                alive.steps_done = 0
                alive._levels = noise_levels(self)
            return result

        @wraps(kind.step)
        def step(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = kind.step(self, *args, **kwargs)
            if (alive := tracker()) is not None:
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
    flow = "FlowMatch" in type(scheduler).__name__ or getattr(config, "use_flow_sigmas", False)
    if hasattr(scheduler, "sigmas"):
        sigmas = torch.as_tensor(scheduler.sigmas).double()[:count].cpu()
        if getattr(config, "invert_sigmas", False):  # Mochi counts from noise to data
            sigmas = 1 - sigmas
        return list((sigmas if flow else sigmas / (1 + sigmas)).tolist())
    timesteps = torch.as_tensor(scheduler.timesteps).long().cpu()
    kept = scheduler.alphas_cumprod.double().cpu()[timesteps]
    data, noise = kept.sqrt(), (1 - kept).sqrt()
    return list((noise / (data + noise)).tolist())
