"""Chooses the bundled plan: each head's candidate of least measured error, within a time budget.

python -m tools.mini.choose_plan --cost 0.4 --below 0.9 --out pipelines/mini/plan.json
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from ajour import (
    Diagonal,
    MultiDiagonal,
    Phase,
    Plan,
    Pyramid,
    Schedule,
    Skip,
    Stripe,
    TokenGrid,
)
from ajour.pipelines.bundled import Defaults, load_pipeline
from ajour.search import calibrate, head_costs, solve
from ajour.search.calibrate import full_plan
from tools.mini.captions import canonical
from tools.mini.prompts import held_out_prompts

CANDIDATES = {
    "skip": Skip(),
    "frames-0.5": Diagonal(0.5),
    "frames-1": Diagonal(1.0),
    "frames-1.5": Diagonal(1.5),
    "frames-2": Diagonal(2.0),
    "frames-3": Diagonal(3.0),
    "first-1": Diagonal(1.0, first_frame=True),
    "first-2": Diagonal(2.0, first_frame=True),
    "place-1": MultiDiagonal(1, 1),
    "place-2": MultiDiagonal(2, 2),
    "place-3": MultiDiagonal(3, 3),
    "anchors-4": Stripe(4),
    "anchors-3": Stripe(3),
    "near": Pyramid(0, 0, 0),
    "near-through-time": Pyramid(12, 0, 0, growth=1.5),
    "near-wide": Pyramid(0, 1, 1, growth=1.5),
    "frame": Pyramid(0, 16, 16, curve="raster"),
    "frames": Pyramid(1, 16, 16, growth=1.3, curve="raster"),
    "place": Pyramid(12, 1, 1, growth=1.5, curve="column"),
    "rows": Pyramid(12, 0, 16, growth=1.5, curve="column"),
}


def main() -> None:
    """Calibrates, solves, writes the plan and says what it chose."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="pipeline folder; the bundled model by default")
    parser.add_argument(
        "--cost", type=float, nargs="+", required=True,
        help="attention time relative to dense, measured here; one plan each",
    )  # fmt: skip
    parser.add_argument("--below", type=float, default=0.9, help="noise level to go sparse at")
    parser.add_argument("--levels", type=float, nargs="+", default=[0.85, 0.6, 0.3])
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--backend")
    parser.add_argument("--out", type=Path, required=True, help="{cost} is filled in")
    args = parser.parse_args()
    default = Defaults()
    pipe = load_pipeline(args.model, dtype=torch.float32)
    # Not the prompts that plans are judged on.
    prompts = [canonical(scene) for scene in held_out_prompts(args.prompts, seed=101)]
    errors = calibrate(
        pipe,
        list(CANDIDATES.values()),
        prompts,
        args.levels,
        backend=args.backend,
        num_frames=default.frames,
        height=default.height,
        width=default.width,
        num_inference_steps=default.steps,
        guidance_scale=default.guidance,
        max_sequence_length=default.text_length,
    )
    mean = errors.values.mean(axis=0)
    model = full_plan(pipe.transformer).model
    grid = TokenGrid((default.frames + 3) // 4, default.height // 16, default.width // 16)
    costs = head_costs(
        errors.candidates, grid, model["heads"], model["head_dim"], torch.float32, pipe.device,
        args.backend,
    )  # fmt: skip
    names = list(CANDIDATES)
    for index, name in enumerate(names):
        found = mean[..., index]
        print(
            f"{name:18} density {errors.densities[index]:.3f} cost {costs[index]:.3f} "
            f"median error {np.median(found):.4f}, least {found.min():.5f}, most {found.max():.3f}"
        )
    for budget in args.cost:
        chosen = solve(mean, costs, budget)
        assignment = tuple(tuple(names[c] for c in row) for row in chosen)
        used = Counter(name for row in assignment for name in row)
        total = np.take_along_axis(mean, chosen[..., None], -1).sum()
        plan = Plan(
            model,
            {name: CANDIDATES[name] for name in names if name in used},
            {"sparse": assignment},
            Schedule((Phase(1.0, "dense"), Phase(args.below, "sparse"))),
            {
                "by": "tools.mini.choose_plan",
                "prompts": prompts,
                "noise_levels": args.levels,
                "cost_budget": budget,
                "density": float(errors.densities[chosen].mean()),
                "total_error": float(total),
            },
        )
        path = Path(str(args.out).format(cost=f"{budget:g}"))
        path.parent.mkdir(parents=True, exist_ok=True)
        plan.save(path)
        mix = ", ".join(f"{count} {name}" for name, count in used.most_common())
        print(f"{path}: density {errors.densities[chosen].mean():.3f}, error {total:.4f}; {mix}")


if __name__ == "__main__":
    main()
