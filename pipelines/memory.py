"""Whether a size can fit in memory, said before the work."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

PIXEL_BYTES = 90
"""Bytes of the host's memory for each pixel of a video: two videos, and what compares them.
Measured on the bundled model: 87 bytes, between 17 x 128 x 128 and 49 x 256 x 256."""


def needed_bytes(frames: int, height: int, width: int) -> int:
    """The memory that making and comparing two videos takes at least, without the model."""
    return PIXEL_BYTES * frames * height * width


def memory_warning(call: Mapping[str, Any], available: int) -> str:
    """A sentence if the videos of a call cannot fit in so many bytes; otherwise empty."""
    size = [call.get(name) for name in ("num_frames", "height", "width")]
    frames, height, width = (side if isinstance(side, int) else 1 for side in size)
    needed = needed_bytes(frames, height, width)
    if needed <= available:
        return ""
    return (
        f"warning: two videos of {frames} x {height} x {width} and their comparison take at least "
        f"{needed / 1e9:,.0f} GB, this machine has {available / 1e9:,.0f} GB, so the run will "
        "probably end for want of memory; give a smaller size"
    )


def host_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def warn_of_memory(call: Mapping[str, Any]) -> None:
    """Print a warning to stderr if the videos of a call cannot fit in this machine's memory."""
    if hasattr(os, "sysconf") and (text := memory_warning(call, host_bytes())):
        print(text, file=sys.stderr, flush=True)
