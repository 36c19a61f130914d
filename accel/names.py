"""Names that the command line offers before PyTorch is loaded."""

from __future__ import annotations

BACKENDS = ("hopper", "triton", "cpu", "reference")
"""Every backend, in the order in which `backend=None` tries them."""
