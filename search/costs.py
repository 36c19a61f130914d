"""The cost model: seconds of a pass under any choice of patterns on one device, dtype and grid."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.pipelines.devices import pipeline_device
from ajour.plan import Plan
from ajour.schedule import DENSE, Phase, Schedule
from ajour.search.passes import ROUNDS, SKIPPED, pass_turns
from ajour.search.timing import time_layers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.patterns import Pattern

MIXES = 4
"""Random mixes whose whole passes are timed."""


MOST_SCALED = 1.5
"""Layers' times are scaled by no more than this to fit whole passes: tiny models' are all noise."""


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
        first: what the first head of a pattern in a layer costs beyond a further one, as a share.
        held_out: (predicted, measured) seconds of random mixes that the model has not seen.
    """

    names: tuple[str, ...]
    heads: tuple[float, ...]
    layer: float
    dense_layer: float
    dense_pass: float
    other: float
    passes: int
    first: float = 0.0
    held_out: tuple[tuple[float, float], ...] = ()

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
    """Time layers apart, then whole passes, and fit the model.

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
    dtype, device = pipe.transformer.dtype, pipeline_device(pipe)
    patterns, names = list(candidates.values()), list(candidates)
    layers = time_layers(patterns, grid, model["heads"], model["head_dim"], dtype, device, backend)
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
        dense_layer=layers.dense_layer,
        dense_pass=float(np.median(spent[DENSE])),
        other=max(0.0, float(np.median(spent[SKIPPED])) - scale * skipped),
        passes=passes,
        first=layers.first,
        held_out=layers.held_out,
    )
