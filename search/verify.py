"""Verification: real runs of a plan on verification prompts against dense attention."""

from __future__ import annotations

import os
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ajour.pipelines.enable import sparse
from ajour.pipelines.generate import sample
from ajour.pipelines.quality import BEST_DB, psnr, ssim
from ajour.pipelines.video import to_bytes
from ajour.schedule import DENSE
from ajour.search.flow import warp_error
from ajour.search.settings import digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ajour.plan import Plan
    from ajour.search.work import Work
    from ajour.search.workers import Workers


class Verifier:
    """Runs plans on prompts; each run is a unit of work.

    Quality is measured on videos of 8 bits.

    Args:
        pipe: a supported pipeline, not enabled.
        prompts: to run.
        seed: of the first prompt; the others follow.
        work: where finished units are kept, and the dense videos beside them.
        workers: processes that share the prompts.
        backend: the operator's backend; None chooses.
        call: further arguments of the pipeline's call.
    """

    def __init__(
        self,
        pipe: Any,
        prompts: Sequence[str],
        seed: int,
        work: Work,
        workers: Workers,
        backend: str | None,
        call: Mapping[str, Any],
    ) -> None:
        self.pipe = pipe
        self.prompts = prompts
        self.seed = seed
        self.work = work
        self.workers = workers
        self.backend = backend
        self.call = call

    def dense(self) -> list[dict[str, Any]]:
        """`seconds` and `warp` of dense attention on every prompt; keeps its videos."""
        return self._each("dense", self._dense)

    def check(self, plan: Plan) -> dict[str, Any]:
        """Run a plan on every prompt.

        Returns:
            `psnr_db`, `ssim`, `warp` (temporal warp error), `dense_warp`, `run_seconds`,
            `dense_run_seconds` (medians), `run_speedup` (their ratio), `psnr_db_each`, and `key`,
            which names the plan.
        """
        key = plan_key(plan)
        dense = self.dense()

        def run(index: int) -> dict[str, Any]:
            stock = self._dense_video(index)
            with sparse(self.pipe, plan, backend=self.backend, strict=True):
                video, seconds = self._sample(index, key)
            self._keep(f"{key}/{index}", video)
            changed, exact = (x.astype(np.float32) / np.float32(255) for x in (video, stock))
            return {
                "psnr_db": min(psnr(changed, exact), BEST_DB),
                "ssim": ssim(changed, exact),
                "warp": warp_error(video, stock),
                "seconds": seconds,
            }

        found = self._each(key, run)
        spent, usual = (median(one["seconds"] for one in group) for group in (found, dense))
        return {name: mean(one[name] for one in found) for name in ("psnr_db", "ssim", "warp")} | {
            "key": key,
            "psnr_db_each": [round(one["psnr_db"], 3) for one in found],
            "dense_warp": mean(one["warp"] for one in dense),
            "run_seconds": spent,
            "dense_run_seconds": usual,
            "run_speedup": usual / spent,
        }

    def video(self, key: str, index: int) -> NDArray[np.uint8] | None:
        """A kept video, (F,H,W,3), of `dense` or of a plan's key; None if it is not here."""
        path = self.work.folder / f"{key}/{index}".replace("/", "-")
        path = path.with_suffix(".npy")
        return np.load(path) if path.exists() else None

    def _dense(self, index: int) -> dict[str, Any]:
        video, seconds = self._sample(index, DENSE)
        self._keep(f"dense/{index}", video)
        return {"seconds": seconds, "warp": warp_error(video)}

    def _dense_video(self, index: int) -> NDArray[np.uint8]:
        """The dense video, made again where another machine has it."""
        video = self.video("dense", index)
        if video is None:
            self._dense(index)
            video = self.video("dense", index)
        assert video is not None
        return video

    def _sample(self, index: int, label: str) -> tuple[NDArray[np.uint8], float]:
        found = sample(self.pipe, self.prompts[index], self.seed + index, label, **self.call)
        return to_bytes(found.video), found.seconds

    def _keep(self, key: str, video: NDArray[np.uint8]) -> None:
        """Write a video whole or not at all."""
        path = self.work.folder / key.replace("/", "-")
        part = path.with_suffix(f".{self.workers.rank}.part")
        with part.open("wb") as file:
            np.save(file, video)
        os.replace(part, path.with_suffix(".npy"))

    def _each(self, key: str, run: Any) -> list[dict[str, Any]]:
        keys = [f"{key}/{index}" for index in range(len(self.prompts))]
        own = self.workers.missing(self.work, keys)[1]

        def one(unit: str) -> dict[str, Any]:
            value: dict[str, Any] = run(int(unit.rsplit("/")[-1]))
            bar.update()
            return value

        hidden = None if own and self.workers.first else True
        with tqdm(total=len(own), desc=key.split("/")[0], unit="run", disable=hidden) as bar:
            return list(self.workers.share(self.work, keys, one).values())


def plan_key(plan: Plan) -> str:
    """Of a plan's units of work: stands for everything but its provenance."""
    return f"plan/{digest({k: v for k, v in plan.to_dict().items() if k != 'provenance'})}"
