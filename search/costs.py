"""The cost model: seconds of a pass under any choice of patterns on one device, dtype and grid."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.dispatch import choose
from ajour.lowering import pools
from ajour.patterns import Skip
from ajour.pipelines.devices import pipeline_device
from ajour.pipelines.machine import device_name
from ajour.plan import Plan
from ajour.schedule import DENSE, Phase, Schedule
from ajour.search.passes import ROUNDS, pass_turns
from ajour.search.timing import design, fit, typical_times

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.patterns import Pattern
    from ajour.search.passes import Turns

HELD_OUT = 12
"""Layers of random mixes that the model is judged on."""

SKIPPED = "skipped"
"""Name of the timed passes in which the operator skips all heads."""

SINGLE = ("layer", "pooling", "dense_pass", "other", "first")
"""The single times among a table's fields."""


@dataclass(frozen=True)
class Costs:
    """The cost model of one device, dtype and grid.

    Args:
        names: the candidates, C of them.
        heads: seconds of a head under each candidate, C of them.
        pooled: whether each candidate has pooled keys, C of them.
        layer: seconds of a layer's call beyond its heads.
        pooling: seconds more of a layer with pooled keys.
        dense_pass: seconds of a whole pass of the transformer with stock attention.
        other: seconds of a pass that are not spent in the operator when it is in use.
        passes: passes of a denoising step.
        first: what the first head of a pattern in a layer costs beyond a further one, as a share.
        held_out: (predicted, measured) seconds of random mixes that the model has not seen.
        conditions: what else they hold for, as of `conditions`.
    """

    names: tuple[str, ...]
    heads: tuple[float, ...]
    pooled: tuple[bool, ...]
    layer: float
    pooling: float
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
        used = np.array([np.bincount(row, minlength=len(self.names)) for row in choice])
        times = [self.layer, self.pooling, *self.heads]
        return float((design(used, np.array(self.pooled), self.first) @ times).sum())

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
                pooled=tuple(map(_flag, data["pooled"])),
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
        sizes = len(costs.names), len(costs.heads), len(costs.pooled)
        if len(set(sizes)) > 1 or not costs.dense_pass > 0:
            raise ValueError(
                "a table of costs needs one time and one entry of pooled per name and a positive "
                f"dense_pass, got {sizes[0]} names, {sizes[1]} times, {sizes[2]} entries and "
                f"{costs.dense_pass!r}"
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
    """Time passes whose layers have one pattern each or random mixes, and fit the model.

    Every layer is timed where it runs: with what it is given there, after what ran before.

    Args:
        pipe: a supported pipeline with one transformer, not enabled.
        model: the plan's `model`.
        candidates: patterns by name, C of them.
        grid: the token grid.
        passes: passes of a denoising step.
        prompt: any prompt.
        backend: the operator's backend; None chooses.
        call: further arguments of the pipeline's call.
    """
    names, (layers, heads) = list(candidates), (model["layers"], model["heads"])
    rows = layer_rows(len(names), layers, heads)
    places = np.random.default_rng(1).permutation(len(rows)).reshape(-1, layers)
    assignments = {
        f"mix-{number}": tuple(tuple(names[index] for index in row) for row in rows[own])
        for number, own in enumerate(places)
    }
    rows_of = dict(zip(assignments, places, strict=True))
    assignments[SKIPPED] = ((SKIPPED,) * heads,) * layers
    patterns = dict(candidates) | {SKIPPED: Skip()}
    plan = Plan(dict(model), patterns, assignments, Schedule((Phase(1.0, SKIPPED),)))
    turns = pass_turns(pipe, plan, prompt, backend, ROUNDS, **call)
    measured = typical_times(*_in_order(turns, rows_of))
    used = np.array([np.bincount(row, minlength=len(names)) for row in rows], dtype=float)
    pooled = np.array([pools(pattern, grid) for pattern in candidates.values()])
    first, found = fit(used[:-HELD_OUT], pooled, measured[:-HELD_OUT])
    predicted = design(used[-HELD_OUT:], pooled, first) @ found
    beyond = np.array(turns.passes[SKIPPED]) - turns.layers[SKIPPED].sum(axis=1)
    return Costs(
        names=tuple(names),
        heads=tuple(found[2:].tolist()),
        pooled=tuple(pooled.tolist()),
        layer=float(found[0]),
        pooling=float(found[1]),
        dense_pass=float(np.median(turns.passes[DENSE])),
        other=max(0.0, float(np.median(beyond))),
        passes=passes,
        first=first,
        held_out=tuple(zip(predicted.tolist(), measured[-HELD_OUT:].tolist(), strict=True)),
        conditions=conditions(pipe, model, grid, backend),
    )


def _in_order(
    turns: Turns, rows: Mapping[str, NDArray[np.int64]]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Layers' times and which row each is of, (rounds, n) each, in the order of their passes."""
    orders = [[name for name in order if name in rows] for order in turns.orders]
    times = [
        np.concatenate([turns.layers[name][number] for name in order])
        for number, order in enumerate(orders)
    ]
    return np.array(times), np.array([np.concatenate([rows[n] for n in order]) for order in orders])


def layer_rows(candidates: int, layers: int, heads: int) -> NDArray[np.int64]:
    """The layers that are timed: of one candidate each, then at least as many random mixes.

    The last `HELD_OUT` are for judging the fit.

    Returns:
        (n, heads), index of each head's candidate; n is a multiple of `layers`.
    """
    alone = np.repeat(np.arange(candidates)[:, None], heads, axis=1)
    count = -(-(2 * candidates + HELD_OUT) // layers) * layers - candidates
    mixed = np.random.default_rng(0).integers(0, candidates, (count, heads))
    return np.concatenate([alone, mixed])


def _time(value: Any) -> float:
    """Seconds, or a share of them, as a float."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < float("inf"):
        raise ValueError(f"a time must be a finite number of at least 0, got {value!r:.40}")
    return float(value)


def _flag(value: Any) -> bool:
    """True or false, as a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"an entry of pooled must be true or false, got {value!r:.40}")
    return value
