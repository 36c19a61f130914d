"""Calibration: how much each pattern would change each head, and how much that counts."""

from __future__ import annotations
