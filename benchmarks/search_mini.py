r"""A searched plan beside simple plans, on held-out prompts and in one run.

Simple plans are a plan made by hand and the search's baselines: the best single patterns for all
heads of about the same predicted time.

    python -m benchmarks.search_mini --prompts 16 --repeats 5 \
        --out benchmarks/results/search-mini.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ajour import Plan
from ajour.pipelines.bundled import FOLDER
from benchmarks.mini import Arm, arguments, load, read_plan, run_arms

BY_HAND = Path(__file__).parent / "plans" / "mini-by-hand.json"


def main() -> None:
    """Runs the searched plan, then the others."""
    parser = arguments(__doc__)
    parser.add_argument("--plan", type=Path, default=FOLDER / "plan.json")
    parser.add_argument(
        "--figures", type=Path, default="benchmarks/results/search-mini-figures.json"
    )
    args = parser.parse_args()
    figures = json.loads(args.figures.read_text())
    chosen = figures["chosen"]
    single = [Arm(row["name"], Plan.from_dict(row["plan"])) for row in figures["baselines"]]
    others = [*single, read_plan(str(BY_HAND))]

    def conclude(rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The searched plan's figures, the best of the others, attention's time in a pass."""
        first, *rest = rows
        return {key: first[key] for key in ("speedup", "psnr_db", "ssim")} | {
            "baseline_psnr_db": max((row["psnr_db"] for row in rest), default=None),
            "predicted_ms": 1000 * chosen["predicted_attention_seconds"],
            "measured_ms": 1000 * chosen["attention_seconds"],
        }

    pipe = load(args)
    run_arms([Arm("searched", Plan.load(args.plan)), *others], pipe, args, conclude)


if __name__ == "__main__":
    main()
