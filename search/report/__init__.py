"""The report: one HTML page with figures and pictures."""
