"""Timing: what passes cost, and a cost model that predicts it."""
