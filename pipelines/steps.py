"""Following a scheduler: which noise level the next forward pass is at, without touching a GPU."""

from __future__ import annotations

import inspect
import types
import weakref
from functools import wraps
from typing import Any

import torch

from ajour.schedule import DENSE


class StepTracker:
    """Counts denoising steps by wrapping a scheduler's `set_timesteps` and `step`.

    The wrappers are bound methods set on the scheduler instance, so a deep copy of the scheduler
    binds them to the copy, whose steps do not count. All trackers of a scheduler share them; they
    hold the trackers weakly.

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
        self._begin = 0
        self._pipe = (lambda: None) if pipe is None else weakref.ref(pipe)
        self._follow(scheduler)

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
        """Index of the next step within the scheduler's timesteps.

        A run that leaves out the first timesteps without telling the scheduler (video to video)
        is taken for one from the start until its first step is done.
        """
        begin = _told_begin(self._scheduler())
        return (self._begin if begin is None else begin) + self.steps_done

    def sync(self) -> None:
        """Follow the scheduler that the pipeline has now, if it is another one."""
        scheduler = getattr(self._pipe(), "scheduler", None)
        if scheduler is None or scheduler is self._scheduler():
            return
        self.release()
        self._follow(scheduler)
        if scheduler.timesteps is not None:
            self._start(scheduler)

    def release(self) -> None:
        """Stop following; the last tracker of a scheduler takes the wrappers off it."""
        scheduler = self._scheduler()
        trackers = _TRACKERS.get(scheduler) if scheduler is not None else None
        if trackers is None:
            return
        trackers.discard(self)
        if not trackers:
            _unwrap(scheduler)
            del _TRACKERS[scheduler]

    def _start(self, scheduler: Any) -> None:
        self.runs += 1
        self.steps_done = 0
        self.ran = {}
        self._begin = 0
        self._levels = noise_levels(scheduler)

    def _advance(self, scheduler: Any, timestep: Any) -> None:
        if self.steps_done == 0 and timestep is not None and _told_begin(scheduler) is None:
            self._begin = _place(scheduler, timestep)
            self.ran = {self._begin + index: use for index, use in self.ran.items()}
        self.steps_done += 1

    def _follow(self, scheduler: Any) -> None:
        if not hasattr(scheduler, "sigmas") and not hasattr(scheduler, "alphas_cumprod"):
            raise TypeError(
                f"{type(scheduler).__name__} has neither sigmas nor alphas_cumprod, so its noise "
                "level is unknown; use a scheduler that has one of them"
            )
        self._scheduler = weakref.ref(scheduler)
        if scheduler not in _TRACKERS:
            _TRACKERS[scheduler] = weakref.WeakSet()
            _wrap(scheduler)
        _TRACKERS[scheduler].add(self)


_TRACKERS: weakref.WeakKeyDictionary[Any, weakref.WeakSet[StepTracker]] = (
    weakref.WeakKeyDictionary()
)
"""Who follows a scheduler that is wrapped."""

_WRAPPERS: weakref.WeakSet[Any] = weakref.WeakSet()
"""The functions of all wrappers; each has as `before` what the scheduler had in its place."""

_inside: weakref.WeakSet[Any] = weakref.WeakSet()
"""Schedulers in a wrapped call: a wrapper that another one calls counts nothing."""

_METHODS = ("set_timesteps", "step")


def _wrap(scheduler: Any) -> None:
    """Tell a scheduler's trackers of each run and step; methods set on it before stay in use."""
    own = {name: vars(scheduler).get(name) for name in _METHODS}
    kind = type(scheduler)
    parameters = list(inspect.signature(kind.step).parameters)
    place = parameters.index("timestep") - 1 if "timestep" in parameters else None

    def call(name: str, followed: Any, args: Any, kwargs: Any) -> tuple[Any, tuple[Any, ...]]:
        """A method's result, and the trackers to tell of it."""
        method = _bound(own[name], followed) or types.MethodType(getattr(kind, name), followed)
        if followed in _inside:
            return method(*args, **kwargs), ()
        _inside.add(followed)
        try:
            return method(*args, **kwargs), tuple(_TRACKERS.get(followed, ()))
        finally:
            _inside.discard(followed)

    @wraps(kind.set_timesteps)  # pipelines read the signatures of both methods
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> Any:
        result, trackers = call("set_timesteps", self, args, kwargs)
        for tracker in trackers:
            tracker._start(self)
        return result

    @wraps(kind.step)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        timestep = kwargs.get("timestep")
        if place is not None and place < len(args):
            timestep = args[place]
        result, trackers = call("step", self, args, kwargs)
        for tracker in trackers:
            tracker._advance(self, timestep)
        return result

    for wrapper in (set_timesteps, step):
        name = wrapper.__name__
        if not _is_wrapper(own[name]):  # a copy of a followed scheduler has wrappers already
            wrapper.before = own[name]  # type: ignore[attr-defined]
            _WRAPPERS.add(wrapper)
            setattr(scheduler, name, types.MethodType(wrapper, scheduler))


def _unwrap(scheduler: Any) -> None:
    """Undo `_wrap`; what was put over the wrappers stays."""
    for name in _METHODS:
        if _is_wrapper(vars(scheduler).get(name)):
            before = _bound(vars(scheduler).pop(name).before, scheduler)
            if before is not None:
                setattr(scheduler, name, before)


def _is_wrapper(method: Any) -> bool:
    return getattr(method, "__func__", None) in _WRAPPERS


def _bound(method: Any, scheduler: Any) -> Any:
    """What was set on a scheduler; its own bound methods are those of a copy, if that is given."""
    if isinstance(method, types.MethodType) and type(method.__self__) is type(scheduler):
        return types.MethodType(method.__func__, scheduler)
    return method


def _told_begin(scheduler: Any) -> int | None:
    """Index of a run's first step if the pipeline has told the scheduler."""
    begin: int | None = getattr(scheduler, "begin_index", None)
    return begin


def _place(scheduler: Any, timestep: Any) -> int:
    """Index of a timestep among the scheduler's; 0 if it is not among them."""
    timesteps = torch.as_tensor(scheduler.timesteps).tolist()
    found = torch.as_tensor(timestep).tolist()
    return timesteps.index(found) if found in timesteps else 0


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
