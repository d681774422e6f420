"""How far a model's confidence can be believed."""

from __future__ import annotations

from typing import Any

import numpy as np


def calibration(confidence: np.ndarray, right: np.ndarray, *, bins: int = 10) -> dict[str, Any]:
    """Compare confidence with how often it was right, in bins of equal width.

    `confidence` `[decisions]` is between 0 and 1, `right` `[decisions]` is true or false. Gives `bins`, those
    that any decision falls into, as `{low, high, rows, confidence, accuracy}`, and `ece`, the expected
    calibration error: the mean distance of the two, weighted by rows (Guo et al. 2017, On Calibration of
    Modern Neural Networks). Raises `ValueError` for arrays that do not fit, are empty, or hold NaN.
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(right, dtype=np.float64)
    if confidence.shape != right.shape or confidence.ndim != 1 or not len(confidence):
        raise ValueError(f"confidence {confidence.shape} does not fit right {right.shape}")
    if np.isnan(confidence).any():
        raise ValueError("confidence is NaN: nothing can be said of it")
    places = np.clip((confidence * bins).astype(int), 0, bins - 1)
    rows = np.bincount(places, minlength=bins)
    sure = np.bincount(places, weights=confidence, minlength=bins)
    hits = np.bincount(places, weights=right, minlength=bins)
    found = [
        {
            "low": i / bins,
            "high": (i + 1) / bins,
            "rows": int(rows[i]),
            "confidence": float(sure[i] / rows[i]),
            "accuracy": float(hits[i] / rows[i]),
        }
        for i in np.flatnonzero(rows)
    ]
    return {"bins": found, "ece": float(np.abs(sure - hits).sum() / len(confidence))}
