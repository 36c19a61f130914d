"""A short run of a pipeline that shows what a run consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ajour.grid import TokenGrid
from ajour.patterns import Skip
from ajour.search.setup import uniform_plan
from ajour.search.work import rounded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ajour.search.setup import Setup

STEPS = 2
"""Steps of the run."""


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
    def from_dict(cls, data: Mapping[str, Any]) -> RunShape:
        """From the output of `asdict`, or JSON of it."""
        return cls(TokenGrid(**data["grid"]), tuple(data["noise_levels"]), data["passes"])


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
        short = dict(setup.call) | {"num_inference_steps": STEPS}
        try:
            setup.pipe(prompt, **short if decode else short | {"output_type": "latent"})
        finally:
            hook.remove()
        grid = session.runtimes[0].grid
    assert grid is not None  # strict
    return RunShape(grid, noise_levels, len(calls) // STEPS)
