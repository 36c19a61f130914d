"""The cost model: what a layer costs on this device, whatever mix of patterns its heads have.

A layer's call of the operator costs a fixed time plus a time per head that depends on the head's
pattern. Both are fitted to timings of the real backend on layers of one pattern and on random
mixes; other random mixes tell how far the model is off.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from ajour.capture import first_frame_blocks
from ajour.lowering import lower
from ajour.ops import attention
from ajour.patterns import Captured

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.patterns import Pattern
    from ajour.table import BlockTable

HELD_OUT = 12
"""Random mixes that the model is judged on."""

ROUNDS = 5
"""Timings of everything, in turns."""


@dataclass(frozen=True)
class Costs:
    """The cost model of one device, dtype and grid.

    Args:
        names: the candidates, C of them.
        heads: seconds of a head under each candidate, C of them.
        layer: seconds of a layer's call beyond its heads.
        dense_layer: seconds of a layer's dense attention.
        dense_pass: seconds of a whole pass of the transformer with stock attention.
        other: seconds of a pass that are not spent in the operator when it is in use.
        passes: passes of a denoising step.
        held_out: (predicted, measured) seconds of random mixes that the model has not seen.
    """

    names: tuple[str, ...]
    heads: tuple[float, ...]
    layer: float
    dense_layer: float
    dense_pass: float
    other: float
    passes: int
    held_out: tuple[tuple[float, float], ...] = ()

    def sparse_pass(self, choice: NDArray[np.int64]) -> float:
        """Seconds of a pass under a choice (layers, heads) of candidates."""
        return self.other + len(choice) * self.layer + float(np.take(self.heads, choice).sum())

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
            ValueError: if entries are missing, unknown, or of the wrong kind.
        """
        try:
            lists = {"names": tuple(data["names"]), "heads": tuple(map(float, data["heads"]))}
            pairs = tuple((float(a), float(b)) for a, b in data["held_out"])
            costs = cls(**data | lists | {"held_out": pairs})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a table of costs: {error!r}") from error
        if len(costs.names) != len(costs.heads) or not costs.dense_pass > 0 or costs.passes < 1:
            raise ValueError(
                "a table of costs needs one time per name, a positive dense_pass and at least one "
                f"pass, got {len(costs.names)} names, {len(costs.heads)} times, "
                f"{costs.dense_pass!r} and {costs.passes!r}"
            )
        return costs


@dataclass(frozen=True)
class LayerCosts:
    """What `time_layers` fits: fields as of `Costs`."""

    heads: tuple[float, ...]
    layer: float
    dense_layer: float
    held_out: tuple[tuple[float, float], ...]


def time_layers(
    candidates: Sequence[Pattern],
    grid: TokenGrid,
    heads: int,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device,
    backend: str | None = None,
    rounds: int = ROUNDS,
) -> LayerCosts:
    """Time layers of one candidate and of random mixes, and fit the model.

    Args:
        candidates: the patterns, C of them.
        grid: the token grid.
        heads: heads of a layer.
        head_dim: channels of a head.
        dtype: of q, k and v.
        device: where to time.
        backend: the operator's backend; None chooses.
        rounds: timings of each layer, in turns; their lower quartiles are taken.

    Returns:
        The fit. Its times are never negative.
    """
    from scipy.optimize import nnls

    rng = np.random.default_rng(0)
    count = len(candidates)
    rows = [[index] * heads for index in range(count)]
    rows += rng.integers(0, count, (count + HELD_OUT, heads)).tolist()
    shared = _one_head_each(candidates, grid).to(device)
    own = shared.head_rows.tolist()
    tables = [shared.with_heads([own[index] for index in row]) for row in rows]
    shape = (1, grid.seq_len, heads, head_dim)
    q, k, v = (torch.randn(shape, device=device, dtype=dtype) for _ in range(3))

    def dense() -> object:
        return F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        )

    calls: list[Callable[[], object]] = [dense]
    calls += [partial(attention, q, k, v, table, backend=backend) for table in tables]
    bar = tqdm(range(rounds + 1), desc="time", unit="round", disable=None)
    turns = [[seconds(call, device) for call in calls] for _ in bar]
    # The first round compiles and warms up. Others' load only ever adds time.
    typical = np.quantile(turns[1:], 0.25, axis=0)
    measured = typical[1:]
    used = np.array([np.bincount(row, minlength=count) for row in rows], dtype=float)
    design = np.hstack([np.ones((len(rows), 1)), used])
    fitted = len(rows) - HELD_OUT
    weights = 1 / measured[:fitted, None]  # least relative errors
    found, _ = nnls(design[:fitted] * weights, np.ones(fitted))
    predicted = design[fitted:] @ found
    pairs = zip(predicted.tolist(), measured[fitted:].tolist(), strict=True)
    return LayerCosts(tuple(found[1:].tolist()), float(found[0]), float(typical[0]), tuple(pairs))


def _one_head_each(candidates: Sequence[Pattern], grid: TokenGrid) -> BlockTable:
    """A table with a head per candidate; captured maps are of random importance."""
    table = lower(candidates, grid)
    for index, pattern in enumerate(candidates):
        if isinstance(pattern, Captured):
            mass = torch.rand(1, grid.video_blocks, grid.video_blocks)
            levels = pattern.select(mass, first_frame_blocks(grid, pattern.order))
            table = table.with_rows(levels, torch.tensor([index]), max(pattern.levels))
    return table


def head_costs(costs: Costs, heads: int) -> Mapping[str, float]:
    """Time of a head under each candidate, as a share of a head of dense attention."""
    whole = costs.dense_layer / heads
    return {name: time / whole for name, time in zip(costs.names, costs.heads, strict=True)}


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call, all of a GPU's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
