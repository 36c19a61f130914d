"""Offline search: which pattern each head needs, measured on the user's own model and device."""

from __future__ import annotations
