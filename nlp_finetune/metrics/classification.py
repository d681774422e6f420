"""Scores of class probabilities, in numpy: fast enough to be computed a thousand times for an interval.

They equal scikit-learn's `accuracy_score`, `f1_score` and `matthews_corrcoef` (a test holds that), with
`zero_division=0`. Where any probability is NaN every score is NaN: `argmax` would hide it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Thresholds = float | Sequence[float] | np.ndarray
"""A class is predicted where its probability is at least this; one number, or one a class."""

DEFAULT_THRESHOLD = 0.5


def chosen_class(probabilities: np.ndarray, threshold: float | None = None) -> np.ndarray:
    """Class numbers `[rows]` that are predicted: the likeliest, or of two classes the second from `threshold` on."""
    probabilities = np.asarray(probabilities)
    if threshold is None:
        found: np.ndarray = probabilities.argmax(axis=1)
        return found
    # float64 on both sides: a threshold rounded to float32 could cross the probability beside it.
    return (probabilities[:, 1].astype(np.float64) >= threshold).astype(np.int64)


def single_label(probabilities: np.ndarray, labels: np.ndarray, threshold: float | None = None) -> dict[str, float]:
    """Score rows that have one class each: `accuracy`, `macro_f1`, `mcc`.

    `probabilities` is `[rows, classes]` (logits do as well), `labels` `[rows]` of class numbers. The
    macro average is over the classes present in labels or predictions. `mcc` is Gorodkin's correlation
    for several classes (2004), 0 where it is undefined. `threshold` is that of `chosen_class`. Raises `ValueError` for
    shapes that do not fit.
    """
    table = _table(probabilities, labels, threshold)
    if np.isnan(probabilities).any():
        return dict.fromkeys(("accuracy", "macro_f1", "mcc"), float("nan"))
    hits, true, predicted = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    present = (true + predicted) > 0
    return {
        "accuracy": float(hits.sum() / table.sum()),
        "macro_f1": float(_f1(hits, true, predicted)[present].mean()),
        "mcc": _mcc(hits.sum(), true, predicted),
    }


def top_k(probabilities: np.ndarray, labels: np.ndarray, *, k: int) -> float:
    """Share of rows whose class is among the `k` likeliest; of equal probabilities the first class wins.

    Shapes as in `single_label`. Raises `ValueError` for shapes that do not fit.
    """
    _table(probabilities, labels)
    if np.isnan(probabilities).any():
        return float("nan")
    likeliest = np.argsort(-np.asarray(probabilities), axis=1, kind="stable")[:, :k]
    return float((likeliest == np.asarray(labels)[:, None]).any(axis=1).mean())


def multi_label(
    probabilities: np.ndarray, labels: np.ndarray, thresholds: Thresholds = DEFAULT_THRESHOLD
) -> dict[str, float]:
    """Score rows that have any number of classes: `f1_micro`, `f1_macro`, `accuracy`, `mcc`.

    Both arrays are `[rows, classes]`, `labels` of 0 and 1. `f1_macro` averages over all classes,
    `accuracy` is the share of rows with every class right, `mcc` is taken over all rows x classes
    decisions. Raises `ValueError` for shapes that do not fit.
    """
    chosen, truth = _decisions(probabilities, labels, thresholds)
    if np.isnan(probabilities).any():
        return dict.fromkeys(("f1_micro", "f1_macro", "accuracy", "mcc"), float("nan"))
    hits, true, predicted = (chosen & truth).sum(axis=0), truth.sum(axis=0), chosen.sum(axis=0)
    misses = np.array([truth.size - true.sum(), true.sum()])
    return {
        "f1_micro": float(_f1(hits.sum(), true.sum(), predicted.sum())),
        "f1_macro": float(_f1(hits, true, predicted).mean()),
        "accuracy": float((chosen == truth).all(axis=1).mean()),
        "mcc": _mcc((chosen == truth).sum(), misses, np.array([truth.size - predicted.sum(), predicted.sum()])),
    }


def tune_thresholds(probabilities: np.ndarray, labels: np.ndarray, *, metric: str = "f1_macro") -> list[float]:
    """Find the thresholds that are best on these rows: of `f1_macro` class by class, of anything else by `f1_micro`.

    Both arrays are `[rows, classes]`. Every cut between two observed probabilities is tried. All
    thresholds between the two give the same decisions: 0.5 is taken if it is among them, else the
    middle, which leaves room for rounding. Of equally good cuts the one nearest 0.5 wins. For `f1_macro` a class
    without positive rows keeps 0.5. Raises `ValueError` for shapes that do not fit and for NaN.

    The micro average is one ratio over all classes, 2 hits / (predicted + true). No class by itself says which of its
    cuts is best for that: predicting a class for every row, the best F1 of a class that nothing is known of, ruins it.
    For a ratio F that can be reached, the cuts with the largest 2 hits - F predicted reach F or more, and exactly F
    only if F is the best (Dinkelbach 1967, On Nonlinear Fractional Programming).
    """
    _, truth = _decisions(probabilities, labels, DEFAULT_THRESHOLD)
    if np.isnan(probabilities).any():
        raise ValueError("thresholds cannot be tuned on probabilities that are NaN")
    columns = zip(np.asarray(probabilities, dtype=np.float64).T, truth.T, strict=True)
    cuts = [_Cuts(column, positive) for column, positive in columns]
    if metric == "f1_macro":
        return [one.nearest(one.f1()) if one.positives else DEFAULT_THRESHOLD for one in cuts]
    positives, ratio = sum(one.positives for one in cuts), 0.0
    while True:
        gains = [2.0 * one.hits - ratio * one.predicted for one in cuts]
        best = [int(gain.argmax()) for gain in gains]
        hits = sum(int(one.hits[i]) for one, i in zip(cuts, best, strict=True))
        predicted = sum(int(one.predicted[i]) for one, i in zip(cuts, best, strict=True))
        reached = float(_f1(hits, positives, predicted))
        if reached <= ratio:
            return [one.nearest(gain) for one, gain in zip(cuts, gains, strict=True)]
        ratio = reached


def tune_threshold(probabilities: np.ndarray, labels: np.ndarray, *, metric: str) -> float:
    """Find the threshold between two classes that is best by a metric of `single_label` on these rows.

    `probabilities` is `[rows, 2]`, `labels` `[rows]`. Every cut between two observed probabilities of the second class
    is tried. All thresholds between the two give the same decisions: 0.5 is taken if it is among them, else the middle.
    Of equally good cuts the one nearest 0.5 wins; rows of one class alone keep it. Raises `ValueError` for shapes
    that do not fit and for NaN.
    """
    _table(probabilities, labels)
    if np.shape(probabilities)[1] != 2 or np.isnan(probabilities).any():
        raise ValueError("a threshold is tuned on probabilities of two classes that are numbers")
    positive = np.asarray(labels) == 1
    if positive.all() or not positive.any():
        return DEFAULT_THRESHOLD
    second = np.asarray(probabilities)[:, 1].astype(np.float64)
    values = np.unique(second)[::-1]
    # Above each value lies a cut, and the last takes every row.
    thresholds = [_between(low, high) for low, high in zip([*values, 0.0], [1.0, *values], strict=True) if low < high]
    pairs = np.stack([1 - second, second], axis=1)
    scores = np.array([single_label(pairs, labels, threshold)[metric] for threshold in thresholds])
    best = np.flatnonzero(scores == scores.max())
    return min((thresholds[i] for i in best), key=lambda threshold: abs(threshold - DEFAULT_THRESHOLD))


def per_class(
    probabilities: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    thresholds: Thresholds = DEFAULT_THRESHOLD,
    *,
    threshold: float | None = None,
) -> list[dict[str, Any]]:
    """Score each class: `name`, `precision`, `recall`, `f1` and `support` (rows that have it).

    Takes labels of either kind: `[rows]` for one class a row, where `threshold` is that of `chosen_class`, or
    `[rows, classes]` of 0 and 1 with their `thresholds`. Raises `ValueError` for shapes that do not fit.
    """
    if np.ndim(labels) == 1:
        table = _table(probabilities, labels, threshold)
        hits, true, predicted = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    else:
        chosen, truth = _decisions(probabilities, labels, thresholds)
        hits, true, predicted = (chosen & truth).sum(axis=0), truth.sum(axis=0), chosen.sum(axis=0)
    scores = [_ratio(hits, predicted), _ratio(hits, true), _f1(hits, true, predicted)]
    if np.isnan(probabilities).any():
        scores = [np.full(len(hits), np.nan) for _ in scores]
    return [
        {"name": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(names, *scores, true, strict=True)
    ]


def confusion(probabilities: np.ndarray, labels: np.ndarray, threshold: float | None = None) -> np.ndarray:
    """Count rows by true class (first axis) and predicted class (second): `[classes, classes]`.

    For rows that have one class each; `threshold` is that of `chosen_class`. Raises `ValueError` for shapes that do
    not fit and for NaN.
    """
    if np.isnan(probabilities).any():
        raise ValueError("probabilities are NaN: there is no predicted class to count")
    return _table(probabilities, labels, threshold)


def _table(probabilities: np.ndarray, labels: np.ndarray, threshold: float | None = None) -> np.ndarray:
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(f"probabilities {probabilities.shape} do not fit labels {labels.shape}")
    rows, classes = probabilities.shape
    if rows == 0:
        raise ValueError("no rows to score")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels reach from {labels.min()} to {labels.max()}, classes from 0 to {classes - 1}")
    cells = labels.astype(np.int64) * classes + chosen_class(probabilities, threshold)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def _decisions(probabilities: np.ndarray, labels: np.ndarray, thresholds: Thresholds) -> tuple[np.ndarray, np.ndarray]:
    """What is predicted and what is true, both bool `[rows, classes]`."""
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape:
        raise ValueError(f"probabilities {probabilities.shape} do not fit labels {labels.shape}")
    if len(labels) == 0:
        raise ValueError("no rows to score")
    if np.ndim(thresholds) > 0 and np.shape(thresholds) != labels.shape[1:]:
        raise ValueError(f"{np.size(thresholds)} thresholds for {labels.shape[1]} classes")
    # float64 on both sides: a threshold rounded to float32 could cross the probability beside it.
    chosen = probabilities.astype(np.float64) >= np.asarray(thresholds, dtype=np.float64)
    return chosen, labels > 0.5


def _ratio(part: Any, whole: Any) -> np.ndarray:
    """`part / whole`, 0 where `whole` is 0."""
    whole = np.asarray(whole, dtype=np.float64)
    result: np.ndarray = np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
    return result


def _f1(hits: Any, true: Any, predicted: Any) -> np.ndarray:
    return _ratio(2.0 * np.asarray(hits), np.asarray(true) + np.asarray(predicted))


def _mcc(hits: Any, true: np.ndarray, predicted: np.ndarray) -> float:
    """Correlation from the number of right decisions and the counts by class."""
    # Python integers: the products of counts outgrow int64 on large data.
    hits, true_counts, predicted_counts = int(hits), true.tolist(), predicted.tolist()
    total = sum(true_counts)
    covariance = hits * total - sum(t * p for t, p in zip(true_counts, predicted_counts, strict=True))
    true_variance = total * total - sum(t * t for t in true_counts)
    predicted_variance = total * total - sum(p * p for p in predicted_counts)
    if true_variance == 0 or predicted_variance == 0:
        return 0.0
    return float(covariance / (float(true_variance) ** 0.5 * float(predicted_variance) ** 0.5))


class _Cuts:
    """Of one class, `hits` and `predicted` where no row is taken, and where all rows down to a probability are."""

    def __init__(self, probabilities: np.ndarray, positive: np.ndarray) -> None:
        order = np.argsort(-probabilities, kind="stable")
        values, hits = probabilities[order], np.cumsum(positive[order])
        # A cut is possible only after the last of several equal probabilities.
        last = np.append(values[1:] != values[:-1], True)
        self.positives = int(positive.sum())
        self.hits = hits[last]
        self.predicted = np.flatnonzero(last) + 1
        self.upper = values[last]
        if self.upper[0] < 1.0:
            self.hits, self.predicted = np.append(0, self.hits), np.append(0, self.predicted)
            self.upper = np.append(1.0, self.upper)
        self.lower = np.append(self.upper[1:], 0.0)

    def f1(self) -> np.ndarray:
        """Of each cut."""
        return _f1(self.hits, self.positives, self.predicted)

    def nearest(self, gains: np.ndarray) -> float:
        """Of the thresholds with the largest gain, the one nearest 0.5."""
        best = gains == gains.max()
        candidates = [_between(low, high) for low, high in zip(self.lower[best], self.upper[best], strict=True)]
        return min(candidates, key=lambda threshold: abs(threshold - DEFAULT_THRESHOLD))


def _between(lower: float, upper: float) -> float:
    """A threshold that takes `upper` and leaves `lower`: 0.5 if it does, else the middle."""
    if lower < DEFAULT_THRESHOLD <= upper:
        return DEFAULT_THRESHOLD
    middle = float((lower + upper) / 2)
    return middle if middle > lower else float(upper)
