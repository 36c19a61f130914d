"""Benchmarks: correctness first, then every arm in one run."""
