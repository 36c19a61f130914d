"""Verification: real runs of a plan on verification prompts against dense attention."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.pipelines.quality import BEST_DB, psnr, ssim
from ajour.pipelines.video import to_bytes
from ajour.schedule import DENSE
from ajour.search.settings import digest
from ajour.search.verify.flicker import warp_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ajour.plan import Plan
    from ajour.search.setup import Setup
    from ajour.search.work import Work
    from ajour.search.workers import Workers


@dataclass(frozen=True)
class Quality:
    """How a plan's videos compare with dense attention's; means over the prompts.

    Attributes:
        psnr_db: PSNR against dense.
        ssim: SSIM against dense.
        warp: temporal warp error.
        dense_warp: temporal warp error of dense attention.
        run_seconds: median time of denoising.
        dense_run_seconds: the same with dense attention.
        psnr_db_each: PSNR of every prompt.
    """

    psnr_db: float
    ssim: float
    warp: float
    dense_warp: float
    run_seconds: float
    dense_run_seconds: float
    psnr_db_each: tuple[float, ...]

    @property
    def run_speedup(self) -> float:
        """Ratio of the run times."""
        return self.dense_run_seconds / self.run_seconds

    @property
    def relative_warp(self) -> float:
        """Warp error over that of dense attention; 1 if that is 0."""
        return self.warp / self.dense_warp if self.dense_warp else 1.0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        each = [round(value, 3) for value in self.psnr_db_each]
        return asdict(self) | {"psnr_db_each": each, "run_speedup": self.run_speedup}


@dataclass(frozen=True)
class Verifier:
    """Runs plans on prompts; each run is a unit of work, and videos are kept beside the units.

    `seed` is of the first prompt; each further prompt has the next seed. Quality is measured on
    videos of 8 bits.
    """

    setup: Setup
    prompts: Sequence[str]
    seed: int
    work: Work
    workers: Workers

    def verify(self, plan: Plan) -> Quality:
        """Run a plan, and dense attention where that was not done yet, on every prompt."""
        key = plan_key(plan)

        def run(index: int, tick: Callable[[], Any]) -> dict[str, float]:
            dense_video = self.video(DENSE, index)
            if dense_video is None:  # another machine has it
                dense_video, _ = self._sample(index, DENSE)
            with self.setup.enabled(plan, strict=True):
                video, seconds = self._sample(index, key)
            tick()
            changed, exact = (x.astype(np.float32) / np.float32(255) for x in (video, dense_video))
            return {
                "psnr_db": min(psnr(changed, exact), BEST_DB),
                "ssim": ssim(changed, exact),
                "warp": warp_error(video, dense_video),
                "seconds": seconds,
            }

        dense = self.workers.share(self.work, DENSE, len(self.prompts), self._run_dense)
        runs = self.workers.share(self.work, key, len(self.prompts), run)
        return Quality(
            psnr_db=mean(row["psnr_db"] for row in runs),
            ssim=mean(row["ssim"] for row in runs),
            warp=mean(row["warp"] for row in runs),
            dense_warp=mean(row["warp"] for row in dense),
            run_seconds=median(row["seconds"] for row in runs),
            dense_run_seconds=median(row["seconds"] for row in dense),
            psnr_db_each=tuple(row["psnr_db"] for row in runs),
        )

    def video(self, key: str, index: int) -> NDArray[np.uint8] | None:
        """A kept video, (F,H,W,3), of `dense` or of a plan's key; None if it is not here."""
        path = self._path(key, index)
        return np.load(path) if path.exists() else None

    def _path(self, key: str, index: int) -> Path:
        return self.work.folder / f"{key.replace('/', '-')}-{index}.npy"

    def _run_dense(self, index: int, tick: Callable[[], Any]) -> dict[str, float]:
        video, seconds = self._sample(index, DENSE)
        tick()
        return {"seconds": seconds, "warp": warp_error(video)}

    def _sample(self, index: int, key: str) -> tuple[NDArray[np.uint8], float]:
        """Video and seconds of a run; the file of the video is written whole or not at all."""
        prompt, seed = self.prompts[index], self.seed + index
        run = self.setup.sample(prompt, seed, key)
        video, path = to_bytes(run.video), self._path(key, index)
        part = path.with_suffix(f".{self.workers.rank}.part")
        with part.open("wb") as file:
            np.save(file, video)
        os.replace(part, path)
        return video, run.seconds


def plan_key(plan: Plan) -> str:
    """Key of a plan's units of work: stands for everything but its provenance."""
    return f"plan/{digest({k: v for k, v in plan.to_dict().items() if k != 'provenance'})}"
