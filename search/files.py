"""The files that a search leaves: plan, costs, figures and report."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from ajour.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ajour.search.results import Outcome


def write_results(
    outcome: Outcome,
    video: Callable[[str, int], NDArray[np.uint8] | None],
    out: Path,
    command: str,
) -> Path:
    """Write the plan file, and beside it costs, figures and report.

    Where dense attention is the answer there is no plan to write.

    Args:
        outcome: of the search.
        video: see `write_report`.
        out: the plan file.
        command: repeats the search.

    Returns:
        The report's file.
    """
    from ajour.search.report.page import write_report

    if not outcome.dense_is_best:
        outcome.plan.save(out)
    write_json(beside(out, ".costs.json"), asdict(outcome.costs), indent=None)
    write_json(beside(out, ".figures.json"), outcome.to_dict())
    report = beside(out, ".html")
    write_report(outcome, video, report, command)
    return report


def beside(out: Path, suffix: str) -> Path:
    """A file beside a plan file: the suffix replaces `.json`; other names keep their dots."""
    return out.with_name(out.name.removesuffix(".json") + suffix)


def check_out(out: Path) -> None:
    """Check that JSON can be written to a file, before any work.

    Raises:
        ValueError: if the name is that of a folder or of an HTML file, or its folder is a file.
    """
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; name a file, such as {out / 'plan.json'}")
    if out.suffix == ".html":
        raise ValueError(f"--out {out} names a JSON file; give {out.with_suffix('.json')}")
    if not out.parent.is_dir() and out.parent.exists():
        raise ValueError(f"--out {out} cannot be written: {out.parent} is no folder")
