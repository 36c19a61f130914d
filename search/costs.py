"""The cost model: seconds of a pass under any choice of patterns on one device, dtype and grid."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.dispatch import choose
from ajour.pipelines.devices import pipeline_device
from ajour.pipelines.machine import device_name
from ajour.plan import Plan
from ajour.schedule import DENSE, Phase, Schedule
from ajour.search.passes import ROUNDS, SKIPPED, layer_calls, pass_turns
from ajour.search.timing import time_layers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.patterns import Pattern

MIXES = 4
"""Random mixes whose whole passes are timed."""


MOST_SCALED = 1.5
"""Layers' times are scaled by no more than this to fit whole passes: tiny models' are all noise."""

SINGLE = ("layer", "dense_pass", "other", "first")
"""The single times among a table's fields."""


@dataclass(frozen=True)
class Costs:
    """The cost model of one device, dtype and grid.

    Args:
        names: the candidates, C of them.
        heads: seconds of a head under each candidate, C of them.
        layer: seconds of a layer's call beyond its heads.
        dense_pass: seconds of a whole pass of the transformer with stock attention.
        other: seconds of a pass that are not spent in the operator when it is in use.
        passes: passes of a denoising step.
        first: what the first head of a pattern in a layer costs beyond a further one, as a share.
        held_out: (predicted, measured) seconds of random mixes that the model has not seen.
        conditions: what else they hold for, as of `conditions`.
    """

    names: tuple[str, ...]
    heads: tuple[float, ...]
    layer: float
    dense_pass: float
    other: float
    passes: int
    first: float = 0.0
    held_out: tuple[tuple[float, float], ...] = ()
    conditions: dict[str, Any] = field(default_factory=dict)

    def attention(self, choice: NDArray[np.int64]) -> float:
        """Seconds that a pass spends in the operator.

        Args:
            choice: (layers, heads), index of each head's candidate.
        """
        heads = np.array(self.heads)
        once = sum(heads[np.unique(row)].sum() for row in choice)
        return float(len(choice) * self.layer + heads[choice].sum() + self.first * once)

    @property
    def error(self) -> float:
        """Median relative error of the model on the held-out mixes; 0 if there are none."""
        pairs = np.array(self.held_out).reshape(-1, 2)
        return float(np.median(np.abs(pairs[:, 0] / pairs[:, 1] - 1))) if len(pairs) else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> Costs:
        """From what `to_dict` gave.

        Raises:
            ValueError: if entries are missing, unknown, or of the wrong kind, or if a time is no
                finite number of at least 0.
        """
        if not isinstance(data, dict):
            raise ValueError(f"not a table of costs: an object is needed, got {data!r:.40}")
        known = {field.name for field in fields(cls)}
        missing = sorted(known - set(data) - {"first"})
        if missing or set(data) - known:
            extra = f"unknown {', '.join(sorted(set(data) - known))}" if set(data) - known else ""
            lacks = f"lacks {', '.join(missing)}" if missing else ""
            raise ValueError(
                f"not a table of costs: {lacks or extra}; a search of this version without --costs "
                "writes one"
            )
        try:
            costs = cls(
                names=tuple(map(str, data["names"])),
                heads=tuple(map(_time, data["heads"])),
                held_out=tuple((_time(a), _time(b)) for a, b in data["held_out"]),
                passes=data["passes"],
                conditions=dict(data["conditions"]),
                **{name: _time(data.get(name, 0.0)) for name in SINGLE},
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"not a table of costs: {error}") from error
        if type(costs.passes) is not int or costs.passes < 1:
            raise ValueError(
                f"a table of costs needs an integer of at least 1 as passes, got {costs.passes!r}"
            )
        if len(costs.names) != len(costs.heads) or not costs.dense_pass > 0:
            raise ValueError(
                "a table of costs needs one time per name and a positive dense_pass, "
                f"got {len(costs.names)} names, {len(costs.heads)} times and {costs.dense_pass!r}"
            )
        if not all(measured > 0 for _, measured in costs.held_out):
            raise ValueError("a table of costs needs positive measured times in held_out")
        return costs

    def check(self, conditions: Mapping[str, Any], names: Sequence[str], passes: int) -> None:
        """Raise unless the costs hold for a search.

        Args:
            conditions: of the search.
            names: its candidates.
            passes: its passes of a denoising step.

        Raises:
            ValueError: saying what differs.
        """
        there, here = self.conditions | {"passes": self.passes}, {**conditions, "passes": passes}
        differing = [
            f"{name}: {there.get(name)} there, {here.get(name)} here"
            for name in sorted(there.keys() | here.keys())
            if there.get(name) != here.get(name)
        ]
        if self.names != tuple(names):
            others = sorted(set(self.names) ^ set(names))
            differing.append(f"candidates: {', '.join(others) or 'in another order'}")
        if differing:
            raise ValueError(
                f"the table of costs is of another search ({'; '.join(differing)}); leave out "
                "--costs to measure them here"
            )


def conditions(
    pipe: Any, model: Mapping[str, Any], grid: TokenGrid, backend: str | None
) -> dict[str, Any]:
    """What times depend on besides the candidates.

    Args:
        pipe: a supported pipeline with one transformer.
        model: the plan's `model`.
        grid: the token grid; how much text it has does not count.
        backend: the operator's backend; None chooses.
    """
    dtype, device = pipe.transformer.dtype, pipeline_device(pipe)
    return {
        **model,
        "grid": "x".join(map(str, grid.shape)),
        "device": device_name(device),
        "dtype": str(dtype).removeprefix("torch."),
        "backend": backend or choose(device, dtype, model["head_dim"]),
    }


def measure_costs(
    pipe: Any,
    model: Mapping[str, Any],
    candidates: Mapping[str, Pattern],
    grid: TokenGrid,
    passes: int,
    prompt: str,
    backend: str | None,
    call: Mapping[str, Any],
) -> Costs:
    """Time a layer apart, on what it is given in a real pass, then whole passes; fit the model.

    In a pass the caches are colder than where one layer is timed again and again, so all layers'
    times are scaled to fit passes of random mixes.

    Args:
        pipe: a supported pipeline with one transformer, not enabled.
        model: the plan's `model`.
        candidates: patterns by name, `skip` among them.
        grid: the token grid.
        passes: passes of a denoising step.
        prompt: any prompt.
        backend: the operator's backend; None chooses.
        call: further arguments of the pipeline's call.
    """
    names = list(candidates)
    calls = layer_calls(pipe, prompt, backend, **call)
    layers = time_layers(list(candidates.values()), calls, backend)
    del calls
    shape = (model["layers"], model["heads"])
    mixes = np.random.default_rng(1).integers(0, len(names), (MIXES, *shape))
    assignments = {
        f"mix-{number}": tuple(tuple(names[index] for index in row) for row in mix)
        for number, mix in enumerate(mixes)
    }
    plan = Plan(dict(model), dict(candidates), assignments, Schedule((Phase(1.0, "mix-0"),)))
    spent = pass_turns(pipe, plan, prompt, backend, ROUNDS, **call)
    apart = Costs(tuple(names), **asdict(layers), dense_pass=1.0, other=0.0, passes=passes)
    skipped = apart.attention(np.full(shape, names.index("skip")))
    beyond = np.subtract([spent[name] for name in assignments], spent[SKIPPED])
    expected = np.array([apart.attention(mix) for mix in mixes]) - skipped
    scale = float(np.clip(np.median(beyond / expected[:, None]), 1 / MOST_SCALED, MOST_SCALED))
    return Costs(
        names=tuple(names),
        heads=tuple(scale * time for time in layers.heads),
        layer=scale * layers.layer,
        dense_pass=float(np.median(spent[DENSE])),
        other=max(0.0, float(np.median(spent[SKIPPED])) - scale * skipped),
        passes=passes,
        first=layers.first,
        held_out=layers.held_out,
        conditions=conditions(pipe, model, grid, backend),
    )


def _time(value: Any) -> float:
    """Seconds, or a share of them, as a float."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < float("inf"):
        raise ValueError(f"a time must be a finite number of at least 0, got {value!r:.40}")
    return float(value)
