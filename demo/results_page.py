"""The Benchmark tab: the stored measurements, each with its machine, versions and commit."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajour.demo.charts import table
from ajour.demo.results_charts import KINDS, OTHER, kind_of, rows_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ajour.demo.results_charts import Rows

PACKED = Path(__file__).parent / "results"
TREE = Path(__file__).parents[1] / "benchmarks" / "results"

MOST_BYTES = 4 * 2**20
MOST_ROWS = 200


def results_folder() -> Path:
    """Where the results are: in the package, or in the tree that it is installed from."""
    return PACKED if PACKED.is_dir() else TREE


def page(folder: Path) -> str:
    """All result files of a folder, by kind, those of fewest rows first.

    Args:
        folder: of JSON files as `benchmarks.record` writes them, and figures of searches; others
            are passed over.
    """
    parts = []
    for path in sorted(folder.glob("*.json")):
        if path.stat().st_size > MOST_BYTES:
            continue
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            rows = rows_of(data)
            if rows and isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
                place = [*KINDS, OTHER].index(kind_of(rows))
                parts.append((place, len(rows), path.name, section(path.name, data)))
        except (ValueError, KeyError, TypeError):
            continue
    if not parts:
        return '<p class="aj-note">No stored results come with this installation.</p>'
    return "".join(text for *_, text in sorted(parts))


def section(name: str, data: Mapping[str, Any]) -> str:
    """One result file: what it is, where it was measured, its charts, and its rows.

    Args:
        name: of the file.
        data: what is in it.
    """
    rows = rows_of(data)
    kind = kind_of(rows)
    about = f'<p class="aj-note">{html.escape(kind.about)}</p>' if kind.about else ""
    return (
        f'<section class="aj-results"><h3>{html.escape(kind.title)}</h3>{about}'
        f'<p class="aj-small">{html.escape(", ".join([name, *_where(data)]))}</p>{kind.draw(data)}'
        f"{_rows(rows, name)}</section>"
    )


def _where(data: Mapping[str, Any]) -> list[str]:
    """The machine, the versions and the commit."""
    gpu, cpu, threads = data.get("gpu"), data.get("cpu"), data.get("threads")
    told = [str(gpu)] if gpu else [f"CPU {cpu}, {threads} threads"] if cpu and threads else []
    told += [f"{key} {value}" for key, value in (data.get("versions") or {}).items()]
    return told + ([f"commit {data['commit']}"] if data.get("commit") else [])


def _rows(rows: Rows, name: str) -> str:
    flat = [_flat(row) for row in rows[:MOST_ROWS]]
    columns = list(dict.fromkeys(key for row in flat for key in row))
    cells = [[_cell(row.get(key)) for key in columns] for row in flat]
    many = f"All {len(rows)}" if len(rows) <= MOST_ROWS else f"The first {MOST_ROWS} of {len(rows)}"
    drawn = table(columns, cells, f"Rows of {name}")
    return f"<details><summary>{many} rows</summary>{drawn}</details>"


def _flat(row: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """A row's single values; those of a dict as `key.inner`, lists left out."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{key}.")
        elif not isinstance(value, list):
            found[before + key] = value
    return found


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str("" if value is None else value)
