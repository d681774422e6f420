"""Scores of predicted numbers."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def regression(predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Score numbers: `pearson`, `spearman`, `rmse`, `mae`.

    Both arrays are `[rows]` or `[rows, 1]`. A correlation with a constant is undefined and given as 0:
    a model that always answers the same has learned nothing. Where any number is NaN every score is
    NaN. Raises `ValueError` for numbers of rows that differ or are 0.
    """
    predicted = np.asarray(predictions, dtype=np.float64).reshape(-1)
    true = np.asarray(targets, dtype=np.float64).reshape(-1)
    if predicted.shape != true.shape:
        raise ValueError(f"{len(predicted)} predictions for {len(true)} targets")
    if len(true) == 0:
        raise ValueError("no rows to score")
    if np.isnan(predicted).any() or np.isnan(true).any():
        return dict.fromkeys(("pearson", "spearman", "rmse", "mae"), float("nan"))
    error = predicted - true
    return {
        "pearson": _correlation(predicted, true),
        "spearman": _correlation(rankdata(predicted), rankdata(true)),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(np.abs(error))),
    }


def _correlation(left: np.ndarray, right: np.ndarray) -> float:
    # Constants are found before the mean is taken away: its rounding error would pass for variation.
    if (left == left[0]).all() or (right == right[0]).all():
        return 0.0
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        return float("nan")
    left, right = left - left.mean(), right - right.mean()
    # Scaled before squaring: the square of a tiny deviation would underflow to 0.
    left, right = left / np.abs(left).max(), right / np.abs(right).max()
    cosine = (left @ right) / (np.linalg.norm(left) * np.linalg.norm(right))
    return float(np.clip(cosine, -1.0, 1.0))
