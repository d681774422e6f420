"""Confidence intervals by resampling rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def bootstrap(
    metric: Callable[[np.ndarray], float],
    rows: int,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Bound a metric by the percentile bootstrap: `(low, high)`.

    `metric` takes row positions `[rows]`, drawn with replacement, and returns the metric of those rows;
    `level` is the probability that the interval covers the value on new rows of the same kind. It says
    nothing about another seed of training. Both bounds are NaN where any resample gives NaN. Raises
    `ValueError` without rows or resamples, or for a level outside (0, 1).

    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    if rows < 1 or resamples < 1 or not 0.0 < level < 1.0:
        raise ValueError(f"rows {rows}, resamples {resamples}, level {level}: no interval can be drawn")
    random = np.random.default_rng(seed)
    values = [metric(random.integers(0, rows, size=rows)) for _ in range(resamples)]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
