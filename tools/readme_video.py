"""The animated picture of README.md, from the stored example of the demo.

python -m tools.readme_video
"""

from __future__ import annotations

import json
from pathlib import Path

import imageio.v3 as imageio
import numpy as np

from ajour.pipelines.video import side_by_side, to_bytes
from tools.demo_example import EXAMPLE

OUT = Path("docs/images/compare.webp")
QUALITY = 60


def main() -> None:
    """Write the picture."""
    report = json.loads((EXAMPLE / "report.json").read_text())
    pair = [imageio.imread(EXAMPLE / f"{name}.mp4") for name in ("dense", "sparse")]
    seconds = (report["dense_seconds"], report["sparse_seconds"])
    labels = [f"{name}, {s:.1f} s" for name, s in zip(("dense", "sparse"), seconds, strict=True)]
    frames = side_by_side([video.astype(np.float32) / 255 for video in pair], labels)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    imageio.imwrite(OUT, to_bytes(frames), duration=1000 / report["fps"], loop=0, quality=QUALITY)


if __name__ == "__main__":
    main()
