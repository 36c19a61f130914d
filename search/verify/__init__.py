"""Verification: real runs of a plan against dense attention."""

from __future__ import annotations
