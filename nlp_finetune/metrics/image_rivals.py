"""Simple rivals of an image classifier: what small pixels alone give away."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

_MOST_ROWS = 5_000
_MOST_CLASSES = 100
"""More make the logistic regression slower than they make it better."""


def nearest_mean(train: np.ndarray, labels: np.ndarray, others: np.ndarray, *, classes: int) -> np.ndarray:
    """Scores `[others, classes]`: how near a class's mean image is (less the squared distance).

    `train` and `others` are `[rows, pixels]`, `labels` `[rows]` of class numbers.
    """
    present = np.unique(labels)
    means = np.stack([train[labels == c].mean(axis=0) for c in present])
    distances = (others**2).sum(1)[:, None] - 2 * others @ means.T + (means**2).sum(1)[None]
    found = np.full((len(others), classes), -1e9)  # a class without training rows is never nearest
    found[:, present] = -distances
    return found


def logistic(train: np.ndarray, labels: np.ndarray, others: np.ndarray, *, classes: int) -> np.ndarray | None:
    """Probabilities `[others, classes]` of a logistic regression on pixels; None where it would take long.

    At most 5,000 training rows are used, drawn with a fixed seed, and no more than 100 classes.
    """
    if classes > _MOST_CLASSES or len(np.unique(labels)) < 2:
        return None
    chosen = np.random.default_rng(0).permutation(len(train))[:_MOST_ROWS]
    if len(np.unique(labels[chosen])) < 2:
        return None
    mean, spread = train[chosen].mean(axis=0), train[chosen].std(axis=0) + 0.05
    model = LogisticRegression(C=0.01, max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((train[chosen] - mean) / spread, labels[chosen])
    found = np.zeros((len(others), classes))
    found[:, model.classes_] = model.predict_proba((others - mean) / spread)
    return found
