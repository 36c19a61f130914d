"""Solving: candidate patterns, the knapsack over them, and the budget that reaches a target."""
