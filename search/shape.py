"""What a run of a pipeline consists of, from a run in which only the first step is computed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from statistics import mode
from typing import TYPE_CHECKING, Any

from ajour.grid import TokenGrid
from ajour.patterns import Skip
from ajour.pipelines.steps import watch_steps
from ajour.pipelines.usage import BadUsage
from ajour.quoting import quoted
from ajour.search.bands import Bands
from ajour.search.running import answering
from ajour.search.settings import BANDS
from ajour.search.setup import uniform_plan
from ajour.search.units import count, entries, number
from ajour.search.work import rounded

if TYPE_CHECKING:
    from collections.abc import Callable

    from ajour.search.settings import Settings
    from ajour.search.setup import Setup


@dataclass(frozen=True)
class RunShape:
    """What a run consists of.

    Attributes:
        grid: the token grid.
        noise_levels: of the steps that the run computes; video to video leaves out the first.
        passes: of a transformer per step.
        cuts: the steps in which the second transformer takes over; empty for one transformer.
    """

    grid: TokenGrid
    noise_levels: tuple[float, ...]
    passes: int
    cuts: tuple[int, ...] = ()

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
        cuts = tuple(map(count, data["cuts"]))
        return cls(TokenGrid(**grid), levels, count(data["passes"]), cuts)


def bands_of(settings: Settings, run: RunShape) -> Bands:
    """The bands of a search's runs.

    Raises:
        BadUsage: if more bands were asked for than a run has steps.
    """
    if settings.bands is not None and settings.bands > run.steps:
        raise BadUsage(
            f"a run of {run.steps} steps has at most {run.steps} bands, got {settings.bands}; ask "
            "for fewer bands, or for more steps"
        )
    return Bands(run.noise_levels, settings.bands or BANDS, run.cuts)


def run_shape(setup: Setup, prompt: str, decode: bool = False) -> RunShape:
    """Run a pipeline without attention, and decode the latents if asked to.

    Only the first step is computed. All others get its outputs.

    Raises:
        RuntimeError: if the operator cannot run its attention, with the reason; or if the
            transformers did not take part in every step.
        TypeError: if the run has several denoising loops, or the transformers do not take over
            from one another once.
    """
    used: list[list[int]] = [[]]  # by step: the index of the transformer of every pass
    outputs: list[Any] = []

    def answer(index: int, compute: Callable[[], Any]) -> Any:
        used[-1].append(index)
        if len(used) == 1:
            outputs.append(compute())
        return outputs[min(len(used[-1]), len(outputs)) - 1]

    wanted = {} if decode else {"output_type": "latent"}
    with (
        setup.enabled(uniform_plan(setup.transformer, Skip()), strict=True) as session,
        answering(setup.transformers, answer),
        watch_steps(setup.pipe.scheduler, lambda *_: used.append([])),
    ):
        setup.run(prompt, 0, **wanted)
        run, grid = session.latest_run, session.latest.grid
    steps = used[:-1]
    if not steps or not all(steps) or run is None or grid is None:
        raise RuntimeError(
            f"{setup.name} did not run its transformer before every step of its scheduler, so a "
            "search cannot tell its steps apart"
        )
    levels = run.noise_levels[run.begin :][: len(steps)]
    if len(steps) > len(levels):
        raise TypeError(
            f"{setup.name} denoises more than once in a call: {len(steps)} steps, of which "
            f"{len(levels)} belong to the last loop. Search a call with one loop, for example of "
            "fewer frames"
        )
    cuts = tuple(step for step in range(1, len(steps)) if steps[step][0] != steps[step - 1][0])
    if len(cuts) > 1 or any(len(set(passes)) > 1 for passes in steps):
        raise TypeError(
            f"the transformers of {setup.name} take turns; a search handles a second transformer "
            "only if it takes over once, between two steps"
        )
    return RunShape(grid, tuple(rounded(levels)), mode(map(len, steps)), cuts)
