"""One run for the page: dense and sparse at the same seed, with news after every step."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ajour.demo.preview import Colours, Preview
from ajour.demo.share import AttentionClock
from ajour.demo.store import save
from ajour.pipelines.enable import session_of
from ajour.pipelines.generate import compare

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

MOST_MAP_BYTES = 16 * 2**20
"""Of captured maps, all heads together; more are not kept."""


@dataclass(frozen=True)
class News:
    """Where a run is.

    Attributes:
        done: steps done, all arms together.
        total: steps in all.
        label: the arm under way.
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


class Runner:
    """Makes runs of one model, and remembers how to colour its previews.

    Args:
        model: the model.
        store: where results go.
        colours: a reading of the model's latents, if one is known.
        fps: frames per second of the videos.
    """

    def __init__(
        self, model: Model, store: Store, colours: Colours | None = None, fps: int = 16
    ) -> None:
        self.model = model
        self.store = store
        self.colours = colours
        self.fps = fps
        self._warm: Size | None = None

    def run(self, pipe: Any, job: Job, request: Request, plan: Plan | Auto) -> Result:
        """Generate twice and write the files; `job` is told after every step.

        Args:
            pipe: the pipeline.
            job: the job that this is.
            request: what to generate.
            plan: the plan, or how to choose one.

        Raises:
            Stopped: if the job was stopped.
            PlanError: if the plan is for another model.
        """
        warm_ups = pipe.device.type == "cuda"  # as in `compare`: an untimed run of each arm first
        runs = 2 * (1 + warm_ups)
        news = News(0, runs * request.steps, ARMS[0], 0, request.steps)
        job.tell(news)
        call = self.model.call(pipe, request)
        if not warm_ups and self._warm != request.size:  # or the first steps would count as slow
            few = {"num_inference_steps": 2, "output_type": "latent"}
            pipe(request.prompt, **call | few)
            self._warm = request.size
        clock, preview = AttentionClock(pipe), self._preview(pipe, request)
        begun = time.perf_counter()
        maps: Maps = {}

        def on_step(label: str, step: int, latents: Any) -> None:
            nonlocal news, begun, maps
            if label == ARMS[1] and step == request.steps - 1:
                maps = captured_maps(pipe)
            clock.close_step(label, step)
            job.check()
            done = news.done + 1
            if done == 1:
                begun = time.perf_counter()
            shown = preview.step(step, latents)
            strips = news.strips | ({} if shown is None else {label: shown})
            pace = (time.perf_counter() - begun) / (done - 1) if done > 1 else None
            left = None if pace is None else pace * (news.total - done)
            coloured = preview.colours is not None
            news = News(done, news.total, label, step + 1, request.steps, left, strips, coloured)
            job.tell(news)

        with clock.listen():
            found = compare(
                pipe,
                plan,
                request.prompt,
                request.seed,
                self.model.backend,
                on_step,
                **call,
            )
        job.tell(replace(news, left=0.0))
        if preview.latents is not None:
            self.colours = Colours.fit(preview.latents, found.sparse.video)
        shares = {arm: clock.share(arm) for arm in ARMS}
        return save(self.store.new(), found, self.fps, shares, maps)

    def _preview(self, pipe: Any, request: Request) -> Preview:
        return Preview(pipe.scheduler, request.size, self.colours)


def captured_maps(pipe: Any) -> Maps:
    """The level maps of an enabled pipeline's captured heads, by assignment, layer and head.

    Of its first transformer, and none if they are too big to keep.
    """
    runtime = session_of(pipe).runtimes[0]
    grid, plan = runtime.grid, runtime.plan
    if grid is None or plan is None:
        return {}
    heads = len(plan.assignments) * plan.model["layers"] * plan.model["heads"]
    if heads * grid.video_blocks**2 > MOST_MAP_BYTES:
        return {}
    return {
        (name, layer, head): levels.numpy()
        for name in plan.assignments
        for layer in range(plan.model["layers"])
        for head, levels in runtime.captured(name, layer).items()
    }
