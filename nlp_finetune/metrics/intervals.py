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


_CHUNK = 100
"""Resamples drawn at once: their counts take 8 bytes a row each."""


def paired_bootstrap(
    values: np.ndarray,
    weights: np.ndarray,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Bound the difference between two systems' scores on the same rows: `(low, high, p)`.

    Both arrays are `[2, rows]`: what each row adds to either system's score, and how much it weighs; a
    score is the weighted mean. Each resample draws the same rows for both. `p` is the probability of a
    difference of either sign as large as this one where there is none (Koehn 2004, Statistical
    significance tests for machine translation evaluation; two-sided). Raises `ValueError` without rows,
    or where one system's rows weigh nothing.
    """
    values, weights = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if values.shape != weights.shape or values.ndim != 2 or len(values) != 2 or not values.shape[1]:
        raise ValueError(f"values {values.shape} and weights {weights.shape}: two systems on the same rows are needed")
    if (weights.sum(axis=1) <= 0).any():
        raise ValueError("the rows of one of the systems weigh nothing")
    rows = values.shape[1]
    sums = np.concatenate([values * weights, weights]).T
    random = np.random.default_rng(seed)
    found = []
    for start in range(0, resamples, _CHUNK):
        drawn = random.multinomial(rows, np.full(rows, 1 / rows), size=min(_CHUNK, resamples - start))
        first, second, weight_first, weight_second = (drawn @ sums).T
        found.append(second / np.maximum(weight_second, 1e-12) - first / np.maximum(weight_first, 1e-12))
    differences = np.concatenate(found)
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    # Rounding must not make a difference of nothing.
    tied = np.abs(differences) < 1e-12
    tail = min(((differences < 0) | tied).sum(), ((differences > 0) | tied).sum())
    return float(low), float(high), float(min(1.0, 2 * (tail + 1) / (resamples + 1)))
