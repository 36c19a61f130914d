"""Progress of a command in lines on stderr, which a pipe or a log keeps."""

from __future__ import annotations

import sys
import time
from typing import Any

EVERY = 30.0
"""Seconds between two lines within a stage."""


class Progress:
    """Prints a line for each stage of a command, with the seconds since its start.

    Args:
        steps: denoising steps of a run; 0 if not known.
    """

    def __init__(self, steps: int = 0) -> None:
        self.steps = steps
        self._start = self._last = time.monotonic()

    def stage(self, text: str) -> None:
        """Print a line."""
        self._last = time.monotonic()
        print(f"{self._last - self._start:7.1f} s  {text}", file=sys.stderr, flush=True)

    def step(self, label: str, step: int, _latents: Any) -> None:
        """Print a line after a step if the last line is half a minute old.

        Args:
            label: of the run.
            step: index of the step.
        """
        if time.monotonic() - self._last >= EVERY:
            steps = f" of {self.steps}" if self.steps else ""
            self.stage(f"{label}: step {step + 1}{steps} is done")


def plain_loading() -> None:
    """Switch off the progress bars of loading where they would fill a log."""
    if sys.stderr.isatty():
        return
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
