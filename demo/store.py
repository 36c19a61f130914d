"""Finished runs as files: the example that comes with the package, and the runs of this server."""

from __future__ import annotations

import json
import secrets
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ajour.files import read_json
from ajour.pipelines.bundled import Defaults
from ajour.pipelines.files import read_arrays
from ajour.pipelines.quality import BEST_DB, psnr, ssim
from ajour.pipelines.video import write_mp4
from ajour.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ajour.demo.attention_time import StepTime
    from ajour.pipelines.generate import Comparison

    Maps = dict[tuple[str, int, int], NDArray[np.int8]]
    """Level maps of captured heads, int8 (Nv, Nv), by assignment, layer and head."""

EXAMPLE = Path(__file__).parent / "examples"
"""The stored example: what `save` writes, made by `python -m tools.demo_example`."""

AMPLIFIED = 8
"""By how much the difference view exaggerates."""

MAPS, ERRORS = "maps.npz", "errors.json"

MOST_MAP_BYTES = 16 * 2**20
"""Of captured maps, all heads together; larger maps are not kept."""

MOST_REPORT_BYTES = 2**20

MOST_ERROR_BYTES = 2**20
"""Of a file of errors."""

FILES = ("views.mp4", "dense.mp4", "sparse.mp4", "report.json", "plan.json")


@dataclass(frozen=True)
class Errors:
    """The errors of a plan's heads.

    Attributes:
        by_assignment: (layers, heads): squared error of each head's output, over the squared norm
            of its layer's.
        measured: how they were measured, in words.
    """

    by_assignment: dict[str, NDArray[np.float64]]
    measured: str

    def save(self, path: Path) -> None:
        """Write as JSON."""
        errors = {
            name: [[float(f"{value:.4g}") for value in row] for row in rows.tolist()]
            for name, rows in self.by_assignment.items()
        }
        path.write_text(json.dumps({"measured": self.measured, "errors": errors}) + "\n")

    @classmethod
    def load(cls, path: Path) -> Errors:
        """Read what `save` wrote."""
        data = read_json(path, MOST_ERROR_BYTES, "errors")
        return cls(
            {name: np.array(rows, float) for name, rows in data["errors"].items()},
            str(data["measured"]),
        )


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        folder: where its files are.
        report: the report of `ajour generate`, and `fps`, `size`, `psnr_db_each` and `ssim_each`
            by frame, `step_seconds` of each arm, (self-attention, rest) by step, and `phases` of
            the sparse arm's steps.
        plan: the plan that ran.
        maps: level maps of its captured heads.
        errors: of the plan's heads, if they are stored with the run.
    """

    folder: Path
    report: dict[str, Any]
    plan: Plan
    maps: Maps
    errors: Errors | None = None

    @classmethod
    def load(cls, folder: Path) -> Result | None:
        """Read a folder; None if a file is missing."""
        if not all((folder / name).is_file() for name in FILES):
            return None
        report = read_json(folder / "report.json", MOST_REPORT_BYTES, "report")
        maps: Maps = {}
        if (folder / MAPS).is_file():
            limit = 2 * MOST_MAP_BYTES  # the archive's own entries included
            for key, levels in read_arrays(folder / MAPS, limit, "maps").items():
                name, layer, head = key.rsplit("/", 2)
                maps[name, int(layer), int(head)] = levels
        errors = Errors.load(folder / ERRORS) if (folder / ERRORS).is_file() else None
        return cls(folder, report, Plan.load(folder / "plan.json"), maps, errors)

    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Frames of the sparse video, (n,H,W,3).

        Raises:
            ValueError: if the video has fewer frames.
        """
        import cv2

        video = cv2.VideoCapture(str(self.folder / "sparse.mp4"))
        frames = []
        for index in range(max(indices) + 1):
            read, frame = video.read()
            if not read:
                raise ValueError(f"the video of the run has {index} frames, not {max(indices) + 1}")
            if index in indices:
                frames.append(frame[..., ::-1])
        video.release()
        return np.stack(frames)


def save(
    folder: Path,
    comparison: Comparison,
    times: Mapping[str, Sequence[StepTime]],
    maps: Maps,
) -> Result:
    """Write a run's files.

    Args:
        folder: created.
        comparison: both arms and their report.
        times: of the steps of each arm.
        maps: of the captured heads.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dense, sparse = comparison.dense.video, comparison.sparse.video
    videos = {"views": views(dense, sparse), "dense": dense, "sparse": sparse}
    for name, video in videos.items():
        write_mp4(folder / f"{name}.mp4", video, Defaults.fps)
    pairs = [(sparse[i : i + 1], dense[i : i + 1]) for i in range(len(dense))]
    report = comparison.report.to_dict() | {
        "fps": Defaults.fps,
        "size": list(dense.shape[:3]),
        "psnr_db_each": [round(min(psnr(*pair), BEST_DB), 3) for pair in pairs],
        "ssim_each": [round(ssim(*pair), 5) for pair in pairs],
        "step_seconds": {
            arm: [[round(part, 5) for part in step] for step in steps]
            for arm, steps in times.items()
        },
        "phases": list(comparison.sparse.phases),
    }
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    comparison.plan.save(folder / "plan.json")
    if maps:
        arrays: dict[str, Any] = {"/".join(map(str, key)): value for key, value in maps.items()}
        np.savez_compressed(folder / MAPS, **arrays)
    return Result(folder, report, comparison.plan, maps)


def views(dense: NDArray[np.float32], sparse: NDArray[np.float32]) -> NDArray[np.float32]:
    """Dense, sparse and their amplified difference, one above the other.

    In one video they cannot get out of step, and the difference is taken before compression.
    """
    difference = np.clip(np.abs(sparse - dense) * AMPLIFIED, 0, 1)
    return np.concatenate([dense, sparse, difference], axis=1)


class Store:
    """Folders of finished runs under names that cannot be guessed; the oldest is deleted first.

    Args:
        root: the only folder whose files are served.
        most: runs that are kept.
    """

    def __init__(self, root: Path, most: int = 32) -> None:
        self.root = root
        self._most = most
        self._folders: list[Path] = []
        self._lock = threading.Lock()

    def new(self) -> Path:
        """A folder for a run."""
        folder = self.root / "runs" / secrets.token_urlsafe(16)
        folder.mkdir(parents=True)
        with self._lock:
            self._folders.append(folder)
            if len(self._folders) > self._most:
                shutil.rmtree(self._folders.pop(0), ignore_errors=True)
        return folder

    def example(self, source: Path = EXAMPLE) -> Result | None:
        """The stored example, copied to where its files are served; None if there is none."""
        if Result.load(source) is None:
            return None
        folder = self.root / "example"
        shutil.copytree(source, folder, dirs_exist_ok=True)
        return Result.load(folder)
