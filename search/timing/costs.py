"""The cost model: seconds of a pass for any choice of patterns on one device, dtype and grid."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.dispatch import choose
from ajour.files import read_json
from ajour.pipelines.machine import device_name
from ajour.plan import MAX_BYTES
from ajour.quoting import listed, quoted, shortened
from ajour.search.timing.fit import design

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.search.setup import Setup

TIMES = ("layer", "pooling", "dense_pass", "other", "first")
"""The fields of a table that are one time each."""


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
        other: seconds of a sparse pass outside of the operator.
        passes: passes of a denoising step.
        first: what the first head of a pattern in a layer costs more than a further head, as a
            share.
        held_out: (predicted, measured) seconds of random mixes that the model was not fitted to.
        conditions: of the measurement, see `conditions`.
    """

    names: tuple[str, ...]
    heads: tuple[float, ...]
    pooled: tuple[bool, ...]
    layer: float
    pooling: float
    dense_pass: float
    other: float
    passes: int
    first: float
    held_out: tuple[tuple[float, float], ...]
    conditions: dict[str, Any]

    def attention(self, choice: NDArray[np.int64]) -> float:
        """Seconds in the operator of a pass with candidates by index: (layers, heads)."""
        used = np.array([np.bincount(row, minlength=len(self.names)) for row in choice])
        times = [self.layer, self.pooling, *self.heads]
        return float((design(used, np.array(self.pooled), self.first) @ times).sum())

    @property
    def error(self) -> float:
        """Median relative error of the model on the held-out mixes; 0 if there are none."""
        pairs = np.array(self.held_out).reshape(-1, 2)
        return float(np.median(np.abs(pairs[:, 0] / pairs[:, 1] - 1))) if len(pairs) else 0.0

    @classmethod
    def from_dict(cls, data: Any) -> Costs:
        """From the output of `asdict`, or JSON of it.

        Raises:
            ValueError: if entries are missing, unknown, or of the wrong kind, or if a time is no
                finite number of at least 0.
        """
        try:
            if not isinstance(data, dict):
                raise TypeError(f"an object is needed, got {quoted(data)}")
            known = {field.name for field in fields(cls)}
            for fault, names in (("lacks", known - set(data)), ("unknown", set(data) - known)):
                if names:
                    raise ValueError(
                        f"{fault} {listed(sorted(map(quoted, names)))}; a search of this version "
                        "without --costs writes one"
                    )
            costs = cls(
                names=tuple(map(str, data["names"])),
                heads=tuple(map(_time, data["heads"])),
                pooled=tuple(map(_flag, data["pooled"])),
                held_out=tuple((_time(a), _time(b)) for a, b in data["held_out"]),
                passes=data["passes"],
                conditions=dict(data["conditions"]),
                **{name: _time(data[name]) for name in TIMES},
            )
            if type(costs.passes) is not int or costs.passes < 1:
                raise ValueError(
                    f"passes must be an integer of at least 1, got {quoted(costs.passes)}"
                )
            if not len(costs.names) == len(costs.heads) == len(costs.pooled):
                raise ValueError("names, heads and pooled must have the same length")
            if min([costs.dense_pass, *(measured for _, measured in costs.held_out)]) <= 0:
                raise ValueError("dense_pass and the measured times of held_out must be positive")
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"not a table of costs: {error}") from error
        return costs

    @classmethod
    def load(cls, path: Path) -> Costs:
        """Read the table that an earlier search wrote.

        Raises:
            ValueError: if the file cannot be read, is larger than 16 MiB, or holds no such table.
        """
        data = read_json(path, MAX_BYTES, "costs")
        try:
            return cls.from_dict(data)
        except ValueError as error:
            raise ValueError(f"costs {quoted(str(path))}: {error}") from error

    def check(self, conditions: Mapping[str, Any], names: Sequence[str], passes: int) -> None:
        """Raise ValueError, with what differs, unless the costs hold for a search."""
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
                f"the table of costs is of another search "
                f"({shortened('; '.join(differing), 400)}); leave out "
                "--costs to measure them here"
            )


def conditions(setup: Setup, grid: TokenGrid) -> dict[str, Any]:
    """What times depend on besides the candidates; the grid's exact tokens do not count."""
    model, dtype = setup.model, setup.transformer.dtype
    return {
        **model,
        "grid": "x".join(map(str, grid.shape)),
        "device": device_name(setup.device),
        "dtype": setup.dtype,
        "backend": setup.backend or choose(setup.device, dtype, model["head_dim"]),
    }


def _time(value: Any) -> float:
    """Seconds, or a share of them, as a float."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < float("inf"):
        raise ValueError(f"a time must be a finite number of at least 0, got {quoted(value)}")
    return float(value)


def _flag(value: Any) -> bool:
    """True or false, as a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"an entry of pooled must be true or false, got {quoted(value)}")
    return value
