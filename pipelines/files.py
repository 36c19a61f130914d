"""Reading files of arrays, bounded in size."""

from __future__ import annotations

import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def read_arrays(path: Path, limit: int, what: str) -> dict[str, NDArray[Any]]:
    """Read the arrays of an `.npz` file.

    Args:
        path: the file.
        limit: bytes that its arrays may have, uncompressed.
        what: what the file is, for error messages.

    Raises:
        ValueError: if the file cannot be read, its arrays are larger than the limit, or they hold
            Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > limit:
            raise ValueError(f"its arrays have {size} bytes, the limit is {limit}")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"cannot read {what} {path.name}: {error}") from error
