"""A pipeline together with how it is run: what every stage of a search works on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ajour.pipelines.auto import model_of
from ajour.pipelines.calls import explaining
from ajour.pipelines.devices import pipeline_device
from ajour.pipelines.enable import sparse, transformers_of
from ajour.pipelines.generate import timed_sample
from ajour.pipelines.locate import TRANSFORMERS
from ajour.pipelines.session import session_of
from ajour.pipelines.steps import watch_steps
from ajour.plan import Plan
from ajour.schedule import Phase, Schedule
from ajour.search.running import RunEnded, ending, first_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ajour.patterns import Pattern
    from ajour.pipelines.generate import Sample
    from ajour.pipelines.session import Session

PipelineCall = Mapping[str, Any] | Callable[[Any, str, torch.Generator], Any]
"""How a pipeline is run: arguments of its call, or a function of pipeline, prompt and generator."""

GIVEN = ("prompt", "generator", "output_type", "callback_on_step_end")
"""Arguments of a pipeline's call that a search sets itself."""


class FirstCall(NamedTuple):
    """The first call of a run's transformers: which one, arguments and named arguments."""

    transformer: torch.nn.Module
    args: Any
    kwargs: Any


@dataclass(frozen=True)
class Setup:
    """A pipeline that is not enabled, how it is run, and the operator's backend.

    Args:
        pipe: a pipeline with a `transformer`, and perhaps a `transformer_2` of the same shape that
            takes over within a run.
        call: further arguments of the pipeline's call; or a function that is called with the
            pipeline, a prompt and a generator, runs the pipeline once and returns its pictures.
        backend: without one, the operator chooses.

    Raises:
        TypeError: if the pipeline has no such transformers.
        ValueError: if the call has arguments that the search sets.
    """

    pipe: Any
    call: PipelineCall = field(default_factory=dict)
    backend: str | None = None

    def __post_init__(self) -> None:
        _check_transformers(self.pipe)
        if callable(self.call):
            return
        if given := sorted(set(self.call) & set(GIVEN)):
            raise ValueError(f"a search sets {', '.join(given)} itself; leave it out of the call")

    @property
    def name(self) -> str:
        """The pipeline's class."""
        return type(self.pipe).__name__

    @property
    def transformers(self) -> list[torch.nn.Module]:
        """The transformers in the order of a run: one or two."""
        return transformers_of(self.pipe)

    @property
    def transformer(self) -> Any:
        """The first transformer; a second one has the same shape and dtype."""
        return self.transformers[0]

    @property
    def dtype(self) -> str:
        """The dtype of the transformers, such as `bfloat16`."""
        return str(self.transformer.dtype).removeprefix("torch.")

    @property
    def model(self) -> dict[str, Any]:
        """The `model` of plans for this pipeline: class, layers, heads, head_dim."""
        return model_of(self.transformer)

    @property
    def device(self) -> torch.device:
        """The device that the pipeline runs on."""
        return pipeline_device(self.pipe)

    @contextmanager
    def enabled(self, plan: Plan, strict: bool = False) -> Iterator[Session]:
        """The pipeline's session while it runs a plan within the block."""
        with sparse(self.pipe, plan, backend=self.backend, strict=strict):
            yield session_of(self.pipe)

    def run(self, prompt: str, seed: int, **wanted: Any) -> Any:
        """One run of the pipeline; the initial noise is made on the CPU.

        Args:
            prompt: not used if the call has embeddings of a prompt.
            seed: of the noise.
            wanted: arguments that a function as call does not get, such as `output_type`.

        Returns:
            What the pipeline or the function returned.
        """
        generator = torch.Generator().manual_seed(seed)
        if callable(self.call):
            return self.call(self.pipe, prompt, generator)
        if not takes_embeddings(self.call):
            wanted["prompt"] = prompt
        with explaining(self.pipe, self.call):
            return self.pipe(generator=generator, **self.call, **wanted)

    def sample(self, prompt: str, seed: int, label: str) -> Sample:
        """Pictures and denoising time of one run; `label` is the progress bar's text."""
        return timed_sample(self.pipe, lambda: self.run(prompt, seed, output_type="np"), label)

    def latents(self, prompt: str, seed: int, steps: int | None = None) -> torch.Tensor:
        """The final latents of one run, on the CPU in float32.

        The run of a function ends after `steps` steps, if they are given, and decodes nothing.
        """
        latest: list[torch.Tensor] = []

        def note(_: Any, latents: torch.Tensor) -> None:
            latest.append(latents)
            if callable(self.call) and len(latest) == steps:
                raise RunEnded

        output = None
        with watch_steps(self.pipe.scheduler, note), ending(self.pipe):
            output = self.run(prompt, seed, output_type="latent")
        latents = latest[-1] if callable(self.call) else first_tensor(output)
        return latents.float().cpu()

    def first_call(self, prompt: str) -> FirstCall:
        """The first call of a transformer; the run ends there.

        Raises:
            RuntimeError: if there was none.
        """
        calls: list[FirstCall] = []

        def end(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
            calls.append(FirstCall(module, args, kwargs))
            raise RunEnded

        with ExitStack() as undo:
            for transformer in self.transformers:
                hook = transformer.register_forward_pre_hook(end, prepend=True, with_kwargs=True)
                undo.callback(hook.remove)
            undo.enter_context(ending(self.pipe))
            self.run(prompt, 0, output_type="latent")
        if not calls:
            raise RuntimeError(f"{self.name} did not call its transformer")
        return calls[0]


def takes_embeddings(call: Mapping[str, Any]) -> bool:
    """Whether a call has embeddings of its prompt, so that a prompt cannot be given."""
    return any(name.startswith("prompt_embeds") for name in call)


def _check_transformers(pipe: Any) -> None:
    """Raise TypeError unless a search can handle a pipeline's transformers."""
    name, transformers = type(pipe).__name__, transformers_of(pipe)
    held = [part for part in TRANSFORMERS if vars(pipe).get(part) is not None]
    if held not in (["transformer"], ["transformer", "transformer_2"]):
        raise TypeError(
            f"{name} has {' and '.join(held)}; ajour search and ajour bench handle pipelines with "
            "a transformer, and perhaps a transformer_2 that takes over within a run"
        )
    models = [
        model_of(part) | {"dtype": str(part.dtype).removeprefix("torch.")} for part in transformers
    ]
    differing = [
        f"{key} {value!r} != {models[-1][key]!r}"
        for key, value in models[0].items()
        if value != models[-1][key]
    ]
    if differing:
        raise TypeError(
            f"the two transformers of {name} differ: {', '.join(differing)} (transformer != "
            "transformer_2). A search makes one plan for both. Plans for each can be given by "
            "ajour.enable(pipe.transformer, plan, scheduler=pipe.scheduler)"
        )


def uniform_plan(transformer: torch.nn.Module, pattern: Pattern) -> Plan:
    """The plan that gives every head the same pattern in every step.

    With `Full` it is dense attention by the operator.
    """
    model = model_of(transformer)
    assignment = ((pattern.kind,) * model["heads"],) * model["layers"]
    schedule = Schedule((Phase(1.0, "everything"),))
    return Plan(model, {pattern.kind: pattern}, {"everything": assignment}, schedule)
