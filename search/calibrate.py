"""Calibration: how much each candidate pattern would change each head's contribution.

The measure is the squared error of a head's output after the output projection, over the squared
norm of the whole layer's: ||W_h (O_h' - O_h)||^2 / ||W O||^2. It is comparable between heads and
layers, and where heads err independently it adds up over them (after Sparse-vDiT, arXiv 2506.03065,
whose own scale is not portable between models).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ajour.lowering import lower
from ajour.ops import attention
from ajour.patterns import Full
from ajour.pipelines.enable import session_of, sparse
from ajour.plan import Plan
from ajour.processors import family_of
from ajour.schedule import Phase, Schedule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ajour.grid import TokenGrid
    from ajour.patterns import Pattern
    from ajour.pipelines.enable import Session
    from ajour.table import BlockTable


@dataclass(frozen=True)
class Errors:
    """What a calibration measured.

    Attributes:
        candidates: the patterns, C of them.
        densities: (C,), their densities on the calibrated grid.
        noise_levels: the L noise levels that were sampled.
        values: (L, layers, heads, C), mean relative squared error over prompts and passes.
    """

    candidates: tuple[Pattern, ...]
    densities: NDArray[np.float64]
    noise_levels: tuple[float, ...]
    values: NDArray[np.float64]


def full_plan(transformer: torch.nn.Module) -> Plan:
    """The plan that gives every head `full` in every step: dense attention by the operator."""
    family = family_of(transformer)
    layers = family.layers(transformer)
    model = {
        "transformer": type(transformer).__name__,
        "layers": len(layers),
        "heads": layers[0].heads,
        "head_dim": family.head_dim(transformer),
    }
    assignment = (("full",) * layers[0].heads,) * len(layers)
    schedule = Schedule((Phase(1.0, "everything"),))
    return Plan(model, {"full": Full()}, {"everything": assignment}, schedule)


def calibrate(
    pipe: Any,
    candidates: Sequence[Pattern],
    prompts: Sequence[str],
    noise_levels: Sequence[float],
    backend: str | None = None,
    **options: Any,
) -> Errors:
    """Run a pipeline densely and measure every candidate on every head.

    Args:
        pipe: a supported pipeline with one transformer, not enabled.
        candidates: patterns to try.
        prompts: one run each, with the prompt's index as its seed.
        noise_levels: levels to measure at, 1 for pure noise; the nearest steps are taken.
        backend: the operator's backend; None chooses.
        options: further arguments of the pipeline's call.

    Returns:
        The errors.

    Raises:
        ValueError: if there are no candidates, prompts or noise levels.
    """
    if not candidates or not prompts or not noise_levels:
        raise ValueError(
            "calibration needs candidates, prompts and noise levels, got "
            f"{len(candidates)}, {len(prompts)} and {len(noise_levels)}"
        )
    with sparse(pipe, full_plan(pipe.transformer), backend=backend, strict=True):
        meter = Meter(session_of(pipe), tuple(candidates), tuple(noise_levels), backend)
        for seed, prompt in enumerate(prompts):
            generator = torch.Generator().manual_seed(seed)
            pipe(prompt, generator=generator, output_type="latent", **options)
    return meter.errors()


class Meter:
    """Sums errors while a session runs: listens to every layer's attention.

    Args:
        session: of the enabled pipeline.
        candidates: patterns to try.
        noise_levels: levels to measure at.
        backend: the operator's backend.
    """

    def __init__(
        self,
        session: Session,
        candidates: tuple[Pattern, ...],
        noise_levels: tuple[float, ...],
        backend: str | None,
    ) -> None:
        self.session = session
        self.candidates = candidates
        self.noise_levels = noise_levels
        self.backend = backend
        runtime = session.runtimes[0]
        self.layers = runtime.family.layers(runtime.transformer)
        shape = (len(noise_levels), len(self.layers), self.layers[0].heads, len(candidates))
        self.sums = np.zeros(shape)
        self.counts = np.zeros(shape[:2])
        self.tables: dict[TokenGrid, list[BlockTable]] = {}
        for index, layer in enumerate(self.layers):
            layer.processor.context.listener = self._listener(index)

    def errors(self) -> Errors:
        """The mean of what was heard."""
        tables = next(iter(self.tables.values()))
        densities = np.array([table.density() for table in tables])
        values = self.sums / self.counts[..., None, None]
        return Errors(self.candidates, densities, self.noise_levels, values)

    def _listener(self, layer: int) -> Any:
        def listen(
            q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, grid: TokenGrid
        ) -> None:
            tracker = self.session.tracker
            distances = [np.abs(np.array(tracker.levels) - x) for x in self.noise_levels]
            for index, distance in enumerate(distances):
                if int(distance.argmin()) == tracker.index:
                    self.sums[index, layer] += self._measure(layer, q, k, v, out, grid)
                    self.counts[index, layer] += 1

        return listen

    def _measure(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        out: torch.Tensor,
        grid: TokenGrid,
    ) -> NDArray[np.float64]:
        """Relative squared errors of a layer: (heads, candidates)."""
        heads, dim = q.shape[2:]
        if grid not in self.tables:
            tables = [lower([pattern], grid).to(q.device) for pattern in self.candidates]
            self.tables[grid] = [table.with_heads([0] * heads) for table in tables]
        weight = self.session.runtimes[0].family.output_weight(self.layers[layer])
        if weight is None:
            weight = torch.eye(heads * dim, device=q.device)
        weight = weight.float().unflatten(1, (heads, dim))
        gram = torch.einsum("chd,che->hde", weight, weight)
        whole = torch.einsum("bshd,chd->bsc", out.float(), weight).double().square().sum()
        found = []
        for table in self.tables[grid]:
            changed = attention(q, k, v, table, backend=self.backend)
            assert isinstance(changed, torch.Tensor)
            change = (changed - out).float()
            error = torch.einsum("bshd,hde,bshe->h", change, gram, change).double()
            found.append((error / whole).cpu().numpy())
        return np.stack(found, axis=1)
