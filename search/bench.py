"""`ajour bench`: verify a plan again, on other prompts or another machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ajour.search.provenance import origin
from ajour.search.settings import GENERAL_PROMPTS, MINI_PROMPTS, read_prompts
from ajour.search.timing.passes import time_plan
from ajour.search.timing.probe import run_shape
from ajour.search.verify.runs import Verifier
from ajour.search.work import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ajour.plan import Plan
    from ajour.search.setup import Setup
    from ajour.search.timing.passes import PassTimes
    from ajour.search.verify.runs import Quality
    from ajour.search.workers import Workers


@dataclass(frozen=True)
class Bench:
    """Figures of a plan.

    Attributes:
        quality: of its videos.
        times: of its passes.
        searched: `predicted` and `verified` figures of the plan's search, from its provenance.
        conditions: of the measurement: model, device, versions, call, prompts, seed.
    """

    quality: Quality
    times: PassTimes
    searched: dict[str, Any]
    conditions: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        figures = self.quality.to_dict() | asdict(self.times)
        return figures | {"searched": self.searched} | self.conditions


def bench(setup: Setup, plan: Plan, prompts: Sequence[str], seed: int, workers: Workers) -> Bench:
    """Run a plan on prompts against dense attention.

    Args:
        setup: the pipeline.
        plan: the plan.
        prompts: to run.
        seed: of the first prompt; each further prompt has the next seed.
        workers: processes that share the prompts.
    """
    with TemporaryDirectory(prefix="ajour-bench-") as folder:
        work = Work(Path(folder), {"plan": plan.to_dict()}, rank=workers.rank)
        quality = Verifier(setup, prompts, seed, work, workers).verify(plan)
    shape = run_shape(setup, prompts[0])
    times = time_plan(setup, plan, shape.noise_levels, prompts[0], shape.passes)
    searched = {name: plan.provenance.get(name) for name in ("predicted", "verified")}
    call = {"call": dict(setup.call), "prompts": list(prompts), "seed": seed}
    return Bench(quality, times, searched, origin(setup) | call)


def prompts_for(plan: Plan, path: Path | None, limit: int | None) -> tuple[str, ...]:
    """The prompts of a file, or else the prompts that a search of the plan's model would use."""
    if path is not None:
        prompts = read_prompts(path)
    else:
        prompts = MINI_PROMPTS if plan.provenance.get("model") == "mini" else GENERAL_PROMPTS
    return prompts[:limit]
