"""A pipeline together with how it is run: what every stage of a search works on."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import torch

from ajour.grid import TokenGrid
from ajour.patterns import Skip
from ajour.pipelines.auto import model_of
from ajour.pipelines.devices import pipeline_device
from ajour.pipelines.enable import sparse, transformers_of
from ajour.pipelines.session import session_of
from ajour.plan import Plan
from ajour.quoting import quoted
from ajour.schedule import Phase, Schedule
from ajour.search.units import count, entries, number
from ajour.search.work import rounded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ajour.patterns import Pattern
    from ajour.pipelines.session import Session

PROBE_STEPS = 2
"""Steps of the short run that shows what a run consists of."""


@dataclass(frozen=True)
class Setup:
    """A pipeline that is not enabled, further arguments of its call, and the operator's backend.

    Without a backend, the operator chooses.

    Raises:
        TypeError: if the pipeline has no transformer, more than one, or only a second one.
    """

    pipe: Any
    call: Mapping[str, Any] = field(default_factory=dict)
    backend: str | None = None

    def __post_init__(self) -> None:
        name = type(self.pipe).__name__
        if len(transformers_of(self.pipe)) > 1:
            raise TypeError(
                f"{name} has two transformers; ajour search and ajour bench handle one. "
                "A plan can be given to each: ajour.enable(pipe.transformer, plan, "
                "scheduler=pipe.scheduler)"
            )
        if getattr(self.pipe, "transformer", None) is None:
            raise TypeError(
                f"{name} has a transformer_2 but no transformer; ajour search and ajour bench "
                "handle pipelines with just a transformer"
            )

    @property
    def model(self) -> dict[str, Any]:
        """The `model` of plans for this pipeline: class, layers, heads, head_dim."""
        return model_of(self.pipe.transformer)

    @property
    def device(self) -> torch.device:
        """The device that the pipeline runs on."""
        return pipeline_device(self.pipe)

    @contextmanager
    def enabled(self, plan: Plan, strict: bool = False) -> Iterator[Session]:
        """The pipeline's session while it runs a plan within the block."""
        with sparse(self.pipe, plan, backend=self.backend, strict=strict):
            yield session_of(self.pipe)

    def latents(self, prompt: str, seed: int) -> torch.Tensor:
        """The final latents of one run, on the CPU in float32; the initial noise is made there."""
        generator = torch.Generator().manual_seed(seed)
        output = self.pipe(prompt, generator=generator, output_type="latent", **self.call)
        return first_tensor(output).float().cpu()

    def first_call(self, prompt: str) -> tuple[Any, Any]:
        """Arguments and named arguments of the transformer's first call; the run ends there."""

        def end(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
            raise _RunEnded(args, kwargs)

        hook = self.pipe.transformer.register_forward_pre_hook(end, with_kwargs=True)
        try:
            self.pipe(prompt, output_type="latent", **self.call)
        except _RunEnded as ended:
            return ended.args
        finally:
            hook.remove()
        raise RuntimeError(f"{type(self.pipe).__name__} did not call its transformer")


class _RunEnded(Exception):
    """Ends a run once its transformer was called, with the arguments of the call."""


def uniform_plan(transformer: torch.nn.Module, pattern: Pattern) -> Plan:
    """The plan that gives every head the same pattern in every step.

    With `Full` it is dense attention by the operator.
    """
    model = model_of(transformer)
    assignment = ((pattern.kind,) * model["heads"],) * model["layers"]
    schedule = Schedule((Phase(1.0, "everything"),))
    return Plan(model, {pattern.kind: pattern}, {"everything": assignment}, schedule)


def first_tensor(output: Any) -> torch.Tensor:
    """The first tensor of what a model or pipeline returned."""
    values = output.values() if isinstance(output, dict) else output
    return next(iter(values))


@dataclass(frozen=True)
class RunShape:
    """A run's token grid, noise levels of its steps, and passes of the transformer per step."""

    grid: TokenGrid
    noise_levels: tuple[float, ...]
    passes: int

    @property
    def steps(self) -> int:
        """Denoising steps."""
        return len(self.noise_levels)

    @classmethod
    def from_dict(cls, data: Any) -> RunShape:
        """From the output of `asdict`, or JSON of it.

        Raises:
            ValueError: if the data has another form.
        """
        data = entries(data, [field.name for field in fields(cls)])
        grid = entries(data["grid"], [field.name for field in fields(TokenGrid)])
        if not all(type(extent) is int for extent in grid.values()):
            raise ValueError(f"a grid has integers, got {quoted(grid)}")
        levels = tuple(number(level, 0) for level in data["noise_levels"])
        if not levels or max(levels) > 1:
            raise ValueError(f"noise levels are from 0 to 1, got {quoted(levels)}")
        return cls(TokenGrid(**grid), levels, count(data["passes"]))


def run_shape(setup: Setup, prompt: str, decode: bool = False) -> RunShape:
    """Run two steps of a pipeline without attention, and decode the latents if asked to.

    Raises:
        RuntimeError: if the operator cannot run its attention, with the reason.
    """
    calls: list[Any] = []
    with setup.enabled(uniform_plan(setup.pipe.transformer, Skip()), strict=True) as session:
        setup.first_call(prompt)
        noise_levels = tuple(rounded(session.noise_levels))
        hook = setup.pipe.transformer.register_forward_pre_hook(lambda *_: calls.append(None))
        short = dict(setup.call) | {"num_inference_steps": PROBE_STEPS}
        try:
            setup.pipe(prompt, **short if decode else short | {"output_type": "latent"})
        finally:
            hook.remove()
        grid = session.runtimes[0].grid
    assert grid is not None  # strict
    return RunShape(grid, noise_levels, len(calls) // PROBE_STEPS)
