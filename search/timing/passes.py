"""How long a plan's passes take, in rounds with dense passes, so that load affects them alike."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from ajour.pipelines.stopwatch import LayerTimer, timed
from ajour.quoting import quoted
from ajour.schedule import DENSE, REUSE
from ajour.search.bands import steps_of
from ajour.search.units import entries, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ajour.plan import Plan
    from ajour.search.setup import Setup

ROUNDS = 4
"""Timings of every pass, each in another round."""

MEASURING = "dense+capture"
"""Name of timed dense passes in which captured maps are measured; no assignment can have it."""


@dataclass(frozen=True)
class TimedPasses:
    """Passes that were timed in rounds.

    Attributes:
        passes: seconds of whole passes by name, one per round.
        layers: seconds that each layer spends in the operator, by name of the pass: (rounds,
            layers); 0 where attention is stock.
        orders: names in the order of their passes, one list per round.
    """

    passes: dict[str, list[float]]
    layers: dict[str, NDArray[np.float64]]
    orders: list[list[str]]


@dataclass(frozen=True)
class PassTimes:
    """What a plan's passes cost; medians over the rounds.

    Attributes:
        pass_seconds: by assignment, `dense` included, and `dense+capture` if maps are measured.
        attention_seconds: spent in the operator in a run's mean sparse pass.
        speedup: of a run's denoising.
    """

    pass_seconds: dict[str, float]
    attention_seconds: float
    speedup: float

    @classmethod
    def from_dict(cls, data: Any) -> PassTimes:
        """From the output of `asdict`, or JSON of it.

        Raises:
            ValueError: if the data has another form.
        """
        data = entries(data, [field.name for field in fields(cls)])
        seconds = data["pass_seconds"]
        if not isinstance(seconds, dict) or DENSE not in seconds:
            raise ValueError(f"pass_seconds has times by name, got {quoted(seconds)}")
        return cls(
            {name: number(value, 0) for name, value in seconds.items()},
            number(data["attention_seconds"], 0),
            number(data["speedup"], 0),
        )


def time_passes(
    setup: Setup, plan: Plan, prompt: str, rounds: int, *, measuring: bool = False
) -> TimedPasses:
    """Time a dense pass and a pass of each assignment of a plan, in a new order in each round.

    Of two transformers the one that begins a run is timed; both have the same shape.

    Args:
        setup: the pipeline.
        plan: its schedule does not matter.
        prompt: any prompt.
        rounds: timings of each pass, after one that does not count.
        measuring: time dense passes that measure captured maps too; the plan must have some.

    Returns:
        Times by assignment, after `dense`; `dense+capture` comes last.
    """
    names = [DENSE, *plan.assignments]
    passes: dict[str, list[float]] = {name: [] for name in names}
    layers: dict[str, list[list[float]]] = {name: [] for name in names}
    transformer, args, kwargs = setup.first_call(prompt)
    device, rng = setup.device, np.random.default_rng(0)
    with setup.enabled(plan, strict=True) as session:
        runtime = session.runtime_of(transformer)
        timers = [LayerTimer(device) for _ in range(setup.model["layers"])]

        def seconds(name: str, measure: bool = False) -> float:
            with torch.no_grad(), runtime.run_as(name, measure=measure):
                return timed(lambda: transformer(*args, **kwargs), device)[1]

        if any(plan.is_captured(name) for name in plan.assignments):
            seconds(DENSE, measure=True)
        orders = [[names[index] for index in rng.permutation(len(names))] for _ in range(rounds)]
        with runtime.time(timers):
            for order in tqdm([names, *orders], desc="time", unit="round", disable=None):
                for name in order:
                    passes[name].append(seconds(name))
                    layers[name].append([timer.take() for timer in timers])
        if measuring:  # apart, as the first sparse pass with new maps has to expand them
            passes[MEASURING] = [
                dense + seconds(DENSE, measure=True) - seconds(DENSE) for dense in passes[DENSE]
            ]
    return TimedPasses(
        {name: times[1:] for name, times in passes.items()},
        {name: np.array(times[1:]) for name, times in layers.items()},
        orders,
    )


def time_plan(
    setup: Setup,
    plan: Plan,
    noise_levels: Sequence[float],
    prompt: str,
    passes: int,
    cuts: Sequence[int] = (),
    rounds: int = ROUNDS,
) -> PassTimes:
    """Time a plan's passes.

    Of the passes of a denoising step, the first measures captured maps. A reused step takes no
    time. Any prompt will do.
    """
    steps = [
        MEASURING if step.measures else step.assignment
        for step in steps_of(plan, noise_levels, cuts)
    ]
    times = time_passes(setup, plan, prompt, rounds, measuring=MEASURING in steps)
    seconds = {name: np.array(values) for name, values in times.passes.items()}
    seconds[REUSE] = np.zeros(rounds)
    if MEASURING in steps:
        seconds[MEASURING] = (seconds[MEASURING] + (passes - 1) * seconds[DENSE]) / passes
    run = np.sum([seconds[name] for name in steps], axis=0)
    stock = (DENSE, MEASURING, REUSE)
    sparse = [times.layers[name].sum(axis=1) for name in steps if name not in stock]
    return PassTimes(
        pass_seconds={
            name: float(np.median(values)) for name, values in seconds.items() if name != REUSE
        },
        attention_seconds=float(np.median(np.mean(sparse, axis=0))) if sparse else 0.0,
        speedup=float(np.median(len(steps) * seconds[DENSE] / run)),
    )
