"""The files that a search leaves: plan, costs, figures and report."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from ajour.files import write_json
from ajour.pipelines.outputs import check_writable
from ajour.pipelines.usage import BadUsage

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


def results(out: Path) -> list[Path]:
    """The files of `write_results`."""
    return [out, *(beside(out, suffix) for suffix in (".costs.json", ".figures.json", ".html"))]


def check_out(out: Path) -> None:
    """Check that JSON can be written to a file, before any work.

    Raises:
        BadUsage: if the name is that of a folder or of an HTML file, or it cannot be written.
    """
    if out.suffix == ".html":
        raise BadUsage(f"--out {out} names a JSON file; give {out.with_suffix('.json')}")
    check_writable(out)
