"""Following schedulers: which step of which run the next forward pass belongs to.

Nothing here waits for a GPU, and nothing is guessed: a step that cannot be known is None.
"""

from __future__ import annotations

import inspect
import types
import weakref
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch

from ajour.schedule import DENSE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Run:
    """One denoising run of a scheduler: what follows a call of its `set_timesteps`.

    Args:
        scheduler: the scheduler, after `set_timesteps`.
        begin: index of the first step that is seen, if it is known to be another than the
            pipeline tells the scheduler.

    Attributes:
        noise_levels: of all steps, 1 is pure noise and 0 is clean.
        steps_done: calls of `step` that were seen.
    """

    def __init__(self, scheduler: Any, begin: int | None = None) -> None:
        self.noise_levels = tuple(noise_levels(scheduler))
        self.steps_done = 0
        self._scheduler = weakref.ref(scheduler)
        self._begin = begin
        self._index: int | None = None
        self._ran: dict[int, str] = {}

    @property
    def begin(self) -> int:
        """Index of the first step.

        A run that leaves out the first timesteps without telling the scheduler (video to video)
        is taken to begin at 0 until its first step is done.
        """
        if self._begin is not None:
            return self._begin
        return getattr(self._scheduler(), "begin_index", None) or 0

    @property
    def step(self) -> int | None:
        """Index of the step that the next forward pass belongs to; None after the last one."""
        index = self.begin + self.steps_done
        return index if index < len(self.noise_levels) else None

    def note(self, step: int, assignment: str) -> None:
        """Keep what a forward pass ran in a step; of several passes a sparse one counts."""
        if self._ran.get(step, DENSE) == DENSE:
            self._ran[step] = assignment

    @property
    def steps(self) -> tuple[str, ...]:
        """The assignment that ran in every step that was seen and is done."""
        done = range(self.begin, self.begin + self.steps_done)
        return tuple(self._ran.get(index, DENSE) for index in done)

    def advance(self, scheduler: Any, timestep: Any) -> None:
        """A step is done; one that is taken back and made again (Cosmos 1) counts once."""
        index = getattr(scheduler, "step_index", None)
        if index is not None and index == self._index:
            return
        self._index = index
        begins = getattr(scheduler, "begin_index", None) is not None
        if self.steps_done == 0 and timestep is not None and self._begin is None and not begins:
            place = _place(scheduler, timestep)
            self._ran = {place + index: name for index, name in self._ran.items()}
            self._begin = place
        self.steps_done += 1


class Follower:
    """Follows one scheduler through its runs, by wrapping its `set_timesteps` and `step`.

    The wrappers are bound methods set on the scheduler instance, so a deep copy of the scheduler
    binds them to the copy, whose steps do not count. Sessions share the follower of a scheduler,
    see `follow`.

    Attributes:
        run: the present run, or the last one; None before the first `set_timesteps` that was seen.
    """

    def __init__(self, scheduler: Any) -> None:
        self.users: weakref.WeakSet[Any] = weakref.WeakSet()
        self._scheduler = weakref.ref(scheduler)
        _wrap(scheduler)
        self.run = _adopt(scheduler)

    def release(self, user: Any) -> None:
        """Stop following for a session; the last one takes the wrappers off."""
        self.users.discard(user)
        scheduler = self._scheduler()
        if not self.users and scheduler is not None:
            _unwrap(scheduler)
            _FOLLOWERS.pop(scheduler, None)


def follow(scheduler: Any, user: Any) -> Follower:
    """The follower of a scheduler, for a session to hold until it calls `release`.

    Raises:
        TypeError: if the scheduler has neither `sigmas` nor `alphas_cumprod`, so that no noise
            level can be read.
    """
    if not hasattr(scheduler, "sigmas") and not hasattr(scheduler, "alphas_cumprod"):
        raise TypeError(
            f"{type(scheduler).__name__} has neither sigmas nor alphas_cumprod, so its noise level "
            "is unknown; use a scheduler that has one of them"
        )
    if scheduler not in _FOLLOWERS:
        _FOLLOWERS[scheduler] = Follower(scheduler)
    follower = _FOLLOWERS[scheduler]
    follower.users.add(user)
    return follower


def run_of(scheduler: Any) -> Run | None:
    """The present run of a scheduler; None if it is not followed."""
    follower = _FOLLOWERS.get(scheduler)
    return None if follower is None else follower.run


@contextmanager
def watch_steps(scheduler: Any, note: Callable[[Any, Any], None]) -> Iterator[None]:
    """Within the block, `note` is called after every step of a scheduler, but not of its copies.

    Args:
        scheduler: the scheduler.
        note: takes what the transformer predicted, guidance included, and the latents after the
            step. What it raises ends the run.
    """
    stock, before = type(scheduler).step, vars(scheduler).get("step")

    @wraps(stock)  # pipelines read the signature
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        method = _bound(before, self) or types.MethodType(stock, self)
        result = method(*args, **kwargs)
        if self is scheduler:
            predicted = args[0] if args else kwargs["model_output"]
            values = result.values() if isinstance(result, dict) else result
            note(predicted, next(iter(values)))
        return result

    scheduler.step = types.MethodType(step, scheduler)
    try:
        yield
    finally:
        del scheduler.step
        if before is not None:
            scheduler.step = before


_FOLLOWERS: weakref.WeakKeyDictionary[Any, Follower] = weakref.WeakKeyDictionary()
"""Of every scheduler that is followed."""

_WRAPPERS: weakref.WeakSet[Any] = weakref.WeakSet()
"""The functions of all wrappers; each has as `before` what the scheduler had in its place."""

_inside: weakref.WeakSet[Any] = weakref.WeakSet()
"""Schedulers in a wrapped call: a wrapper that another one calls counts nothing."""

_METHODS = ("set_timesteps", "step")


def _adopt(scheduler: Any) -> Run | None:
    """The run that a scheduler is in already; None if there is none or its step is not known."""
    if getattr(scheduler, "num_inference_steps", None) is None:
        return None
    if not hasattr(scheduler, "step_index"):
        return None
    index = scheduler.step_index
    return Run(scheduler, None if index is None else int(index))


def _wrap(scheduler: Any) -> None:
    """Report each run and step to the follower; methods set on the scheduler before stay in use."""
    kind = type(scheduler)
    parameters = list(inspect.signature(kind.step).parameters)
    place = parameters.index("timestep") - 1 if "timestep" in parameters else None

    def begin(followed: Any, follower: Follower, *_: Any) -> None:
        follower.run = Run(followed)

    def advance(followed: Any, follower: Follower, args: Any, kwargs: Any) -> None:
        given = place is not None and place < len(args)
        if follower.run is not None:
            follower.run.advance(followed, args[place] if given else kwargs.get("timestep"))

    for name, report in zip(_METHODS, (begin, advance), strict=True):
        before = vars(scheduler).get(name)
        if not _is_wrapper(before):  # a copy of a followed scheduler has wrappers already
            wrapper = _wrapper(getattr(kind, name), before, report)
            setattr(scheduler, name, types.MethodType(wrapper, scheduler))


def _wrapper(stock: Any, before: Any, report: Callable[..., None]) -> Any:
    """A method that does what a scheduler's did before, and reports it."""

    @wraps(stock)  # pipelines read the signatures of both methods
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        method = _bound(before, self) or types.MethodType(stock, self)
        if self in _inside:
            return method(*args, **kwargs)
        _inside.add(self)
        try:
            result = method(*args, **kwargs)
        finally:
            _inside.discard(self)
        if self in _FOLLOWERS:
            report(self, _FOLLOWERS[self], args, kwargs)
        return result

    wrapper.before = before  # type: ignore[attr-defined]
    _WRAPPERS.add(wrapper)
    return wrapper


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
    """What was set on a scheduler; bound to the scheduler itself if it is a copy's method."""
    if isinstance(method, types.MethodType) and type(method.__self__) is type(scheduler):
        return types.MethodType(method.__func__, scheduler)
    return method


def _place(scheduler: Any, timestep: Any) -> int:
    """Index of a timestep among the scheduler's; 0 if it is not among them."""
    timesteps = torch.as_tensor(scheduler.timesteps, device="cpu").tolist()
    value = torch.as_tensor(timestep, device="cpu").tolist()
    return timesteps.index(value) if value in timesteps else 0


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
        sigmas = torch.as_tensor(scheduler.sigmas, device="cpu").double()[:count]
        if getattr(config, "invert_sigmas", False):  # Mochi counts from noise to data
            sigmas = 1 - sigmas
        flow = float(sigmas.max()) <= 1 + 1e-6  # other schedules start far above 1
        return list((sigmas if flow else sigmas / (1 + sigmas)).tolist())
    timesteps = torch.as_tensor(scheduler.timesteps, device="cpu").long()
    kept = scheduler.alphas_cumprod.double().cpu()[timesteps]
    data, noise = kept.sqrt(), (1 - kept).sqrt()
    return list((noise / (data + noise)).tolist())
