"""The report: one HTML page with figures and pictures."""

from __future__ import annotations
