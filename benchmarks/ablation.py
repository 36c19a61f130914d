"""Ablations of captured patterns on the bundled model: one thing varied at a time, all heads alike.

Allocation of levels at a quarter of the FLOPs (after Pyramid Sparse Attention, arXiv 2512.04025),
order of the tokens, isolation of the first frame and reuse of the map (after SparseD, arXiv
2509.24014), when to go sparse, how often to refresh, and whose blocks share a budget.

    python -m benchmarks.ablation --prompts 8 --out benchmarks/results/ablation.json
"""

from __future__ import annotations

from typing import Any

from ajour import Captured, Phase, Plan, Schedule
from ajour.pipelines.auto import model_of
from benchmarks.mini import Arm, arguments, load, run_arms

BELOW = 0.9
"""The noise level to go sparse at where it is not what is varied."""

MIXED = (0.15, 0.25, 0.45, 0.45)
TAIL = (1 / 7, 1 / 7, 1 / 7, 1.0)

STUDIES: dict[str, dict[str, dict[str, Any]]] = {
    "allocation": {
        "fine-only": {"cumulative_shares": (0.25,) * 4},
        "exact-2x-4x-dropped": {"cumulative_shares": MIXED},
        "exact-8x": {"cumulative_shares": TAIL},
        "all-4x": {"cumulative_shares": (0.0, 0.0, 1.0, 1.0)},
    },
    "order": {name: {"order": name} for name in ("raster", "column", "hilbert", "bisection")},
    "first-frame": {"isolated": {"first_frame": True}, "not-isolated": {}},
    "scope": {"block": {}, "layer": {"scope": "layer"}},
    "mass": {
        f"{t:g}": {"cumulative_shares": (t, t, t, 1.0), "share_of": "attention"}
        for t in (0.3, 0.5, 0.7)
    },
    "warm-up": {
        f"{below:g}": {"from_noise_level": below} for below in (1.0, 0.95, 0.9, 0.85, 0.8, 0.7)
    },
    "dense_every": {str(n): {"dense_every": n} for n in (0, 2, 3, 4, 6, 8)},
}


def uniform(model: dict[str, Any], **options: Any) -> Plan:
    """A plan that gives every head the same captured pattern.

    Args:
        model: what the plan is for.
        options: fields of the pattern, and `below` and `refresh` of the sparse phase.
    """
    below, refresh = options.pop("from_noise_level", BELOW), options.pop("dense_every", 0)
    sparse = Phase(below, "sparse", refresh)
    return Plan(
        model,
        {"captured": Captured(**{"cumulative_shares": TAIL} | options)},
        {"sparse": (("captured",) * model["heads"],) * model["layers"]},
        Schedule((sparse,) if below == 1 else (Phase(1.0, "dense"), sparse)),
    )


def main() -> None:
    """Runs the studies that are asked for, all by default."""
    parser = arguments(__doc__)
    parser.add_argument("--study", nargs="*", choices=STUDIES, default=list(STUDIES))
    args = parser.parse_args()
    pipe = load(args)
    model = model_of(pipe.transformer)
    plans = [
        (f"{study}/{name}", uniform(model, **varied))
        for study in args.study
        for name, varied in STUDIES[study].items()
    ]
    run_arms([Arm(*plan) for plan in plans], pipe, args)


if __name__ == "__main__":
    main()
