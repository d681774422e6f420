"""Metrics, confidence intervals and baselines, computed without any network."""
