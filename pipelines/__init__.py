"""Sparse attention for a diffusers pipeline: on and off, what runs when, the bundled model."""
