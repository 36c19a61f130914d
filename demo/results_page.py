"""The Benchmark tab: the stored measurements, each with its machine, versions and commit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import UndefinedError

from ajour.demo.charts import table
from ajour.demo.render import note, render
from ajour.demo.result_kinds import KINDS, OTHER, kind_of, rows_of
from ajour.demo.story import story
from ajour.files import read_json

if TYPE_CHECKING:
    from markupsafe import Markup

    from ajour.demo.result_kinds import Row, Rows

PACKED = Path(__file__).parent / "results"
TREE = Path(__file__).resolve().parents[1] / "benchmarks" / "results"

BROKEN = (LookupError, AttributeError, ArithmeticError, TypeError, ValueError, UndefinedError)
"""What a file raises that is no result file, or has a value of another type."""

MOST_BYTES = 4 * 2**20
MOST_ROWS = 200


def results_folder() -> Path:
    """The folder of the results: in the package, or in the tree that it is installed from."""
    return PACKED if PACKED.is_dir() else TREE


def page(folder: Path) -> Markup:
    """Three pictures of the result files of a folder; behind a link, all files with their rows.

    Args:
        folder: of JSON files that `benchmarks.record` wrote, and of searches' figures; other
            files are left out.
    """
    parts, files = [], {}
    for path in sorted(folder.glob("*.json")):
        try:
            data = read_json(path, MOST_BYTES, "results")
            rows = rows_of(data)
            place = [*KINDS, OTHER].index(kind_of(rows))
            parts.append((place, len(rows), path.name, section(path.name, data)))
            story({path.name: data})
        except (
            LookupError,
            AttributeError,
            ArithmeticError,
            TypeError,
            ValueError,
            UndefinedError,
        ):
            continue
        files[path.name] = data
    sections = [text for *_, name, text in sorted(parts) if name in files]
    if not sections:
        return note("No stored results come with this installation.")
    return render("benchmark", story=story(files), sections=sections)


def section(name: str, data: Row) -> Markup:
    """One result file: what it is, where it was measured, its charts, and its rows."""
    rows = rows_of(data)
    kind = kind_of(rows)
    shown = rows[:MOST_ROWS]
    count = f"First {len(shown)} of {len(rows)} rows" if len(rows) > len(shown) else "All rows"
    return render(
        kind.template, name=name, count=count, data=data, rows=rows,
        table=_rows(shown, f"Rows of {name}"), **kind.values(data),
    )  # fmt: skip


def _rows(rows: Rows, caption: str) -> Markup:
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(key for row in flat for key in row))
    return table(columns, [[_cell(row.get(key)) for key in columns] for row in flat], caption)


def _flat(row: Row, prefix: str = "") -> dict[str, Any]:
    """A row's single values, those of a dict as `key.inner`; lists are left out."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            flat[prefix + key] = value
    return flat


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str("" if value is None else value)
