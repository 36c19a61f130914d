"""One run for the page: dense and sparse at the same seed, with progress after every step."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ajour.demo.attention_time import AttentionClock
from ajour.demo.preview import Colours, Preview
from ajour.demo.store import MOST_MAP_BYTES, save
from ajour.pipelines.generate import compare
from ajour.pipelines.session import session_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ajour.demo.device import Job
    from ajour.demo.model import Model
    from ajour.demo.request import Request, Size
    from ajour.demo.store import Maps, Result, Store
    from ajour.pipelines.auto import Auto
    from ajour.plan import Plan

ARMS = ("dense", "sparse")


@dataclass(frozen=True)
class RunProgress:
    """How far a run is.

    Attributes:
        done: steps done, all arms together.
        total: steps in all.
        label: the arm that runs now.
        step: steps of it that are done.
        steps: steps of an arm.
        left: expected seconds until the last step; None before the second step.
        strips: the last preview of each arm, (h,w,3).
        coloured: whether the colours of the previews are known.
    """

    done: int
    total: int
    label: str
    step: int
    steps: int
    left: float | None = None
    strips: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    coloured: bool = False


@dataclass
class Runner:
    """Makes runs of one model into a store, and learns the colours of the model's latents."""

    model: Model
    store: Store
    colours: Colours | None = None
    _warm: Size | None = None

    def run(self, pipe: Any, job: Job, request: Request, plan: Plan | Auto) -> Result:
        """Generate twice and write the files; reports `RunProgress` after every step.

        Args:
            pipe: the pipeline.
            job: this job.
            request: what to generate.
            plan: the plan, or how to choose one.

        Raises:
            Stopped: if the job was stopped.
            PlanError: if the plan is for another model.
        """
        call = self.model.call(pipe, request)
        # On a GPU `compare` runs each arm once before it is timed.
        warm_ups = pipe.device.type == "cuda"
        runs = 2 * (1 + warm_ups)
        now = RunProgress(0, runs * request.steps, ARMS[0], 0, request.steps)
        job.report(now)
        if not warm_ups and self._warm != request.size:  # else the first steps would count as slow
            pipe(request.prompt, **call | {"num_inference_steps": 2, "output_type": "latent"})
            self._warm = request.size
        clock = AttentionClock(pipe)
        preview = Preview(pipe.scheduler, request.size, self.colours)
        start = 0.0
        maps: Maps = {}

        def on_step(label: str, step: int, latents: Any) -> None:
            nonlocal now, start, maps
            if label == ARMS[1] and step == request.steps - 1:
                maps = captured_maps(pipe)
            clock.close_step(label, step)
            job.check()
            done, left = now.done + 1, None
            if done == 1:
                start = time.perf_counter()
            else:
                left = (time.perf_counter() - start) / (done - 1) * (now.total - done)
            strip = preview.step(step, latents)
            now = replace(
                now, done=done, label=label, step=step + 1, left=left,
                strips=now.strips | ({} if strip is None else {label: strip}),
                coloured=preview.colours is not None,
            )  # fmt: skip
            job.report(now)

        with clock.listen():
            comparison = compare(
                pipe, plan, request.prompt, request.seed, self.model.backend, on_step, **call
            )
        job.report(replace(now, left=0.0))
        if preview.latents is not None:
            self.colours = Colours.fit(preview.latents, comparison.sparse.video)
        return save(self.store.new(), comparison, {arm: clock.steps(arm) for arm in ARMS}, maps)


def captured_maps(pipe: Any) -> Maps:
    """The level maps of an enabled pipeline's captured heads; none if they are too big to keep.

    Where a pipeline has two transformers, of the first one.
    """
    runtime = session_of(pipe).runtimes[0]
    grid, plan = runtime.grid, runtime.plan
    if grid is None or plan is None:
        return {}
    layers = range(plan.model["layers"])
    names = plan.schedule.assignments
    heads = len(names) * len(layers) * plan.model["heads"]
    if heads * grid.video_blocks**2 > MOST_MAP_BYTES:
        return {}
    return {
        (name, layer, head): levels.numpy()
        for name in names
        for layer in layers
        for head, levels in runtime.captured(name, layer).items()
    }
