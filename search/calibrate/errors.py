"""Scoring: how much each candidate pattern would change each head's contribution.

The measure is the squared error of a head's output after the output projection, over the squared
norm of the whole layer's: ||W_h (O_h' - O_h)||^2 / ||W O||^2. It is comparable between heads and
layers, and where heads err independently it adds up over them (after Sparse-vDiT, arXiv 2506.03065,
whose own scale is not portable between models).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ajour.capture import Importance
from ajour.pipelines.auto import model_of
from ajour.scoring import head_errors, lay_out, sample_queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.patterns import Pattern
    from ajour.pipelines.session import Session

SAMPLES = 256
"""Queries that errors are measured on."""


@dataclass(eq=False)
class ErrorMeter:
    """Scores every layer of a running pipeline in some of its steps.

    Give it to `listen` of the runtimes of a session that runs dense attention by the operator.

    Args:
        session: the session.
        candidates: C patterns.
        steps: indices among the steps that the run computes.
        samples: queries that errors are measured on.
    """

    session: Session
    candidates: Sequence[Pattern]
    steps: Sequence[int]
    samples: int = SAMPLES
    _scores: dict[tuple[int, int], list[NDArray[np.float64]]] = field(default_factory=dict)

    def __call__(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        out: torch.Tensor,
        grid: TokenGrid,
    ) -> None:
        """Score a layer's attention if its step is one of the steps."""
        step = self.session.position
        if step in self.steps:
            weight = self.session.latest.output_weight(layer, out)
            scores = score(q, k, v, grid, self.candidates, weight, self.samples)
            self._scores.setdefault((step, layer), []).append(scores)

    def errors(self) -> NDArray[np.float64]:
        """(steps, layers, heads, C): mean over the passes that were scored.

        Raises:
            RuntimeError: if a layer was not scored in some step.
        """
        layers = range(model_of(self.session.runtimes[0].transformer)["layers"])
        places = [(step, layer) for step in self.steps for layer in layers]
        missing = [place for place in places if place not in self._scores]
        if missing:
            raise RuntimeError(
                f"{len(missing)} of {len(places)} measurements are missing: the pipeline did "
                "not run every layer in every band of steps; give more steps or turn off what "
                "skips layers"
            )
        return np.array(
            [
                [np.mean(self._scores[step, layer], axis=0) for layer in layers]
                for step in self.steps
            ]
        )


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
        q: (batch, tokens, heads, head_dim), as attention gets it.
        k: same shape.
        v: same shape.
        grid: the token grid.
        candidates: C of them.
        weight: (channels, heads * head_dim), the output projection; the identity if None.
        samples: number of queries to score on.

    Returns:
        (heads, C). Captured patterns are measured on the same q and k: a map that is kept for the
        rest of a run errs a little more.
    """
    queries = sample_queries(grid, samples).to(q.device)
    choices = lay_out(candidates, Importance(q, k, grid), queries)
    return head_errors(q, k, v, grid, choices, queries, weight).cpu().numpy()
