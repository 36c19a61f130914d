"""Verification: real runs of a plan against dense attention."""
