"""Offline search: which pattern each head needs, measured on the user's own model and device."""
