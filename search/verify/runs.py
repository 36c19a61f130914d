"""Verification: real runs of a plan on verification prompts against dense attention."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import mean, median, stdev
from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.files import replacing
from ajour.pipelines.banding import banding
from ajour.pipelines.quality import perceptual, psnr, reported, ssim
from ajour.pipelines.video import to_bytes
from ajour.schedule import DENSE
from ajour.search.settings import digest
from ajour.search.units import entries, number
from ajour.search.verify.flicker import warp_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ajour.plan import Plan
    from ajour.search.setup import Setup
    from ajour.search.work import Work
    from ajour.search.workers import Workers

MOST_FLICKER = 99.0
"""Relative flicker is written as this at most: that of a still dense video would be infinite."""

SCORES = ("psnr_db", "ssim", "perceptual", "banding", "warp")
"""What is kept of the comparison of two videos."""


@dataclass(frozen=True)
class Quality:
    """How a plan's videos compare with dense attention's; means over the prompts.

    Attributes:
        psnr_db: PSNR against dense.
        ssim: SSIM against dense.
        perceptual: perceptual distance from dense, 0 to 1.
        banding: bands in flat regions, in levels of 255.
        warp: temporal warp error.
        dense_warp: temporal warp error of dense attention.
        run_seconds: median time of denoising.
        dense_run_seconds: the same with dense attention.
        psnr_db_each: PSNR of every prompt.
    """

    psnr_db: float
    ssim: float
    perceptual: float
    banding: float
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
    def flicker(self) -> float:
        """Warp error over that of dense attention, at most 99; 1 if both are 0."""
        if not self.dense_warp:
            return MOST_FLICKER if self.warp else 1.0
        return min(self.warp / self.dense_warp, MOST_FLICKER)

    @property
    def psnr_db_spread(self) -> float:
        """Standard deviation of PSNR between prompts: what another prompt may differ by."""
        return stdev(self.psnr_db_each) if len(self.psnr_db_each) > 1 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        each = [round(value, 3) for value in self.psnr_db_each]
        ratios = {
            "psnr_db_spread": self.psnr_db_spread,
            "flicker": self.flicker,
            "run_speedup": self.run_speedup,
        }
        return asdict(self) | {"psnr_db_each": each} | ratios


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
            with self.setup.enabled(plan, strict=True):
                video, seconds = self._sample(index, key)
            if dense_video is None or dense_video.shape != video.shape:
                dense_video, _ = self._sample(index, DENSE)  # another machine has it, or damaged
            tick()
            changed, exact = (x.astype(np.float32) / np.float32(255) for x in (video, dense_video))
            return {
                "psnr_db": reported(psnr(changed, exact)),
                "ssim": ssim(changed, exact),
                "perceptual": perceptual(changed, exact),
                "banding": banding(changed, exact),
                "warp": warp_error(video, dense_video),
                "seconds": seconds,
            }

        count = len(self.prompts)
        self.workers.share(self.work, DENSE, count, self._run_dense)
        self.workers.share(self.work, key, count, run)
        dense = self._read(DENSE, ("seconds", "warp"))
        runs = self._read(key, (*SCORES, "seconds"))
        return Quality(
            psnr_db=mean(row["psnr_db"] for row in runs),
            ssim=mean(row["ssim"] for row in runs),
            perceptual=mean(row["perceptual"] for row in runs),
            banding=mean(row["banding"] for row in runs),
            warp=mean(row["warp"] for row in runs),
            dense_warp=mean(row["warp"] for row in dense),
            run_seconds=median(row["seconds"] for row in runs),
            dense_run_seconds=median(row["seconds"] for row in dense),
            psnr_db_each=tuple(row["psnr_db"] for row in runs),
        )

    def video(self, key: str, index: int) -> NDArray[np.uint8] | None:
        """A kept video, (F,H,W,3), of `dense` or of a plan's key; None if it is not here whole."""
        try:
            video = np.array(np.lib.format.open_memmap(self._path(key, index), mode="r"))
        except (EOFError, MemoryError, OSError, OverflowError, TypeError, ValueError):
            return None
        whole = video.ndim == 4 and video.shape[3] == 3 and video.dtype == np.uint8
        return video if whole and video.size else None

    def _read(self, key: str, names: Sequence[str]) -> list[Mapping[str, float]]:
        """The figures of all prompts, from units of work."""

        def figures(data: Any) -> Mapping[str, float]:
            return {name: number(value) for name, value in entries(data, names).items()}

        return [self.work.read(f"{key}/{n}", figures) for n in range(len(self.prompts))]

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
        video = np.ascontiguousarray(to_bytes(run.video))
        header = np.lib.format.header_data_from_array_1_0(video)
        with replacing(self._path(key, index)) as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.write(video.data)  # np.save hides why it cannot write
        return video, run.seconds


def plan_key(plan: Plan) -> str:
    """Key of a plan's units of work: stands for everything but its provenance."""
    return f"plan/{digest({k: v for k, v in plan.to_dict().items() if k != 'provenance'})}"
