"""Portable Triton backend: any GPU that Triton supports."""
