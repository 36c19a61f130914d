"""Tiny random transformers of every family, and inputs for them."""

from tests.processors.models.case import HEAD_DIM, HEADS, TEXT_DIM, Case, raster
from tests.processors.models.image import IMAGE
from tests.processors.models.video import VIDEO, minimax_h3_inputs

__all__ = [
    "CASES",
    "FIRST_OF_KIN",
    "HEADS",
    "HEAD_DIM",
    "TEXT_DIM",
    "Case",
    "minimax_h3_inputs",
    "raster",
]

CASES = VIDEO | IMAGE
FIRST_OF_KIN = [name for name, case in CASES.items() if case.kin is None]
"""Cases for tests of torch.compile, of copies and of autocast."""
