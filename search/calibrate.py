"""Calibration: how much each candidate pattern would change each head's contribution.

The measure is the squared error of a head's output after the output projection, over the squared
norm of the whole layer's: ||W_h (O_h' - O_h)||^2 / ||W O||^2. It is comparable between heads and
layers, and where heads err independently it adds up over them (after Sparse-vDiT, arXiv 2506.03065,
whose own scale is not portable between models).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.capture import Importance
from ajour.patterns import Full
from ajour.pipelines.auto import model_of
from ajour.plan import Plan
from ajour.schedule import Phase, Schedule
from ajour.scoring import head_errors, lay_out, sample_queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.patterns import Pattern
    from ajour.pipelines.enable import Session

SAMPLES = 256
"""Queries that errors are measured on."""


def full_plan(transformer: torch.nn.Module) -> Plan:
    """The plan that gives every head `full` in every step: dense attention by the operator."""
    model = model_of(transformer)
    assignment = (("full",) * model["heads"],) * model["layers"]
    schedule = Schedule((Phase(1.0, "everything"),))
    return Plan(model, {"full": Full()}, {"everything": assignment}, schedule)


def band_starts(steps: int, bands: int) -> list[int]:
    """First step of each band: equal shares of the steps, at most one band per step."""
    bands = min(bands, steps)
    return [round(band * steps / bands) for band in range(bands)]


class Meter:
    """Measures while a session runs: listens to every layer in the middle step of each band.

    Args:
        session: of a pipeline enabled with `full_plan`.
        candidates: patterns to score, C of them.
        bands: number of bands of steps.
        samples: queries to score on.
    """

    def __init__(
        self,
        session: Session,
        candidates: Sequence[Pattern],
        bands: int,
        samples: int = SAMPLES,
    ) -> None:
        self.session = session
        self.candidates = candidates
        self.bands = bands
        self.samples = samples
        self._family = session.runtimes[0].family
        self._layers = self._family.layers(session.runtimes[0].transformer)
        self._heard: dict[tuple[int, int], list[NDArray[np.float64]]] = {}
        for index, layer in enumerate(self._layers):
            layer.processor.context.listener = self._listener(index)

    def errors(self) -> NDArray[np.float64]:
        """(bands, layers, heads, C): mean over the passes that were heard.

        Raises:
            RuntimeError: if a layer was not heard in some band.
        """
        bands = len(band_starts(len(self.session.tracker.levels), self.bands))
        missing = [key for key in np.ndindex(bands, len(self._layers)) if key not in self._heard]
        if missing:
            raise RuntimeError(
                f"{len(missing)} of {bands * len(self._layers)} measurements are missing: the "
                "pipeline did not run every layer in every band of steps; give more steps or turn "
                "off what skips layers"
            )
        rows = [
            [np.mean(self._heard[band, layer], axis=0) for layer in range(len(self._layers))]
            for band in range(bands)
        ]
        return np.array(rows)

    def _listener(self, layer: int) -> Any:
        def listen(
            q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, grid: TokenGrid
        ) -> None:
            tracker = self.session.tracker
            starts = [*band_starts(len(tracker.levels), self.bands), len(tracker.levels)]
            middles = [(a + b) // 2 for a, b in zip(starts, starts[1:], strict=False)]
            if tracker.index in middles:
                key = middles.index(tracker.index), layer
                self._heard.setdefault(key, []).append(self._measure(layer, q, k, v, grid))

        return listen

    def _measure(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, grid: TokenGrid
    ) -> NDArray[np.float64]:
        """Relative squared errors of a layer: (heads, C)."""
        weight = self._family.output_weight(self._layers[layer])
        return score(q, k, v, grid, self.candidates, weight, self.samples)


def score(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    grid: TokenGrid,
    candidates: Sequence[Pattern],
    weight: torch.Tensor | None,
    samples: int = SAMPLES,
) -> NDArray[np.float64]:
    """Relative squared errors of a layer's heads under each candidate.

    Args:
        q: (batch, tokens, heads, head_dim), as attention sees it.
        k: same shape.
        v: same shape.
        grid: the token grid.
        candidates: the patterns, C of them.
        weight: (channels, heads * head_dim), the output projection; the identity if None.
        samples: queries to score on.

    Returns:
        (heads, C). Captured patterns are measured on the same q and k: a map that is kept for the
        rest of a run errs a little more.
    """
    queries = sample_queries(grid, samples).to(q.device)
    choices = lay_out(candidates, Importance(q, k, grid), queries)
    return head_errors(q, k, v, grid, choices, queries, weight).cpu().numpy()
