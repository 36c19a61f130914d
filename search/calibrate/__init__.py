"""Calibration: how much each pattern would change each head, and how much that counts."""
