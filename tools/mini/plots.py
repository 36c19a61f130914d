"""Pictures of a training run: loss curves and contact sheets."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

LABEL_HEIGHT = 14


def contact_sheet(
    clips: Sequence[Tensor], labels: Sequence[str], path: Path, columns: int = 8, side: int = 128
) -> None:
    """Draws one labelled row of evenly spaced frames per clip.

    Args:
        clips: Videos (3,F,H,W) in [-1,1] on the CPU.
        labels: One line of text per clip.
        path: PNG to write.
        columns: Frames per row.
        side: Height of a frame in pixels.
    """
    rows = []
    for clip, label in zip(clips, labels, strict=True):
        picked = np.linspace(0, clip.shape[1] - 1, columns).round().astype(int)
        width = round(side * clip.shape[3] / clip.shape[2])
        row = Image.new("RGB", (columns * width, side + LABEL_HEIGHT), "white")
        ImageDraw.Draw(row).text((2, 1), label.encode("ascii", "replace").decode(), fill="black")
        for column, frame in enumerate(picked):
            pixels = (clip[:, frame].float().clamp(-1, 1) + 1).mul(127.5).round().byte()
            picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
            row.paste(picture.resize((width, side)), (column * width, LABEL_HEIGHT))
        rows.append(row)
    sheet = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    sheet.save(path)


def loss_curves(logs: Sequence[Path], path: Path) -> None:
    """Draws the loss curves of training logs, one panel per log, one line per clip size.

    Args:
        logs: JSON logs written by the training scripts.
        path: PNG to write.

    Raises:
        ValueError: If a log holds no curve.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(logs), figsize=(6 * len(logs), 4), squeeze=False)
    for axis, source in zip(axes[0], logs, strict=True):
        log = json.loads(source.read_text())
        if not log.get("curve"):
            raise ValueError(f"{source} must hold a non-empty 'curve'; train for longer")
        series: dict[str, list[tuple[float, float]]] = {}
        for point in log["curve"]:
            name = str(point.get("size", "all sizes"))
            series.setdefault(name, []).append((point["seconds"], point["loss"]))
        for name, points in series.items():
            axis.plot(*zip(*points, strict=True), label=name)
        axis.set(title=log["kind"], xlabel="training seconds", ylabel="loss", yscale="log")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    """Reads the command line and draws the curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", type=Path, nargs="+", help="log.json files")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    args = parser.parse_args()
    loss_curves(args.logs, args.out)


if __name__ == "__main__":
    main()
