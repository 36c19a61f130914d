"""What commands print: tables, and figures with no more digits than were measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ajour.pipelines.measures import EVEN, MEASURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ajour.pipelines.generate import Report

FEW = 3
"""From so many pairs of runs on, figures of time have three significant digits, else two."""

NO_FASTER = (
    "Sparse is no faster than dense here. At small sizes attention takes little of the time: try a "
    "larger size, such as --size default or --size real."
)
CHOOSES = (
    " An automatic plan also takes time to choose: give the plan.json of this run, or of a search, "
    "to --plan."
)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; without a header if all columns are unnamed."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_meanings(keys: Iterable[str]) -> None:
    """Print what the measures among some keys mean."""
    known = set(keys)
    for key, measure in MEASURES.items():
        if key in known:
            print(f"{measure.title}: {measure.meaning}")


def rough(value: float, digits: int = 2) -> str:
    """A number with so many significant digits, and no exponent."""
    rounded = float(f"{value:.{digits - 1}e}")
    return f"{rounded:.{digits}g}" if abs(rounded) < 10**digits else f"{rounded:,.0f}"


def report_rows(report: Report) -> list[tuple[str, str]]:
    """The rows that `ajour generate` prints of a report."""
    pairs = len(report.dense_seconds_each)
    digits = 3 if pairs >= FEW else 2
    speedups = [
        dense / sparse
        for dense, sparse in zip(report.dense_seconds_each, report.sparse_seconds_each, strict=True)
    ]
    if pairs == 1:
        how = "measured on one pair of runs; --repeats 3 gives a median"
    else:
        low, high = (rough(value, digits) for value in (min(speedups), max(speedups)))
        how = f"median times of {pairs} pairs of runs, whose speed-ups are {low} to {high}"
    dense = report.steps - report.sparse_steps - report.reused_steps
    rows = [
        ("speed-up", f"{rough(report.speedup, digits)}x, {how}"),
        ("denoising, dense", f"{rough(report.dense_seconds, digits)} s"),
        ("denoising, sparse", f"{rough(report.sparse_seconds, digits)} s"),
    ]
    rows += [
        (MEASURES[key].title, MEASURES[key].show(getattr(report, key)))
        for key in ("psnr_db", "ssim", "perceptual", "banding")
    ]
    rows += [
        (
            "steps",
            f"{report.steps}: {dense} dense, {report.sparse_steps} sparse, "
            f"{report.reused_steps} reused",
        ),
        ("density", f"{report.density:.2f} in sparse steps, {report.mean_density:.2f} in all"),
        ("token grid", report.grid),
        ("backend", f"{report.backend}{', compiled' if report.compiled else ''}"),
        ("device", report.device),
    ]
    rows += [("ran dense", reason) for reason in report.fallbacks]
    return rows


def advice(report: Report, automatic: bool) -> str:
    """What to do where sparse is no faster; otherwise empty."""
    if report.speedup >= 1 + EVEN:
        return ""
    return NO_FASTER + (CHOOSES if automatic else "")
