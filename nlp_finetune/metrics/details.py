"""What stands behind a score: scores of single rows, by length, by class, and the worst mistakes.

Everything here is plain JSON or becomes it, so that a report or a model card needs no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlp_finetune.metrics.calibration import calibration
from nlp_finetune.metrics.classification import Thresholds, chosen_class, confusion, per_class

MOST_MISTAKES = 20
LONGEST_TEXT = 300
"""Characters of a text that is shown; longer ones are cut."""
_MOST_BINS = 6
_MOST_POINTS = 400


@dataclass(frozen=True)
class RowScores:
    """What each row adds to a score: the score of any rows is the mean of theirs, weighted.

    `values` and `weights` are `[rows]`; a row of weight 0 (no entity in it or found in it, say) counts
    for nothing. So F1 is the mean of 2 hits / (found + true) weighted by found + true.
    """

    name: str
    values: np.ndarray
    weights: np.ndarray
    greater_is_better: bool = True

    def score(self, positions: np.ndarray | slice = slice(None)) -> float:
        """Score of the rows at some positions, all of them by default; NaN where they weigh nothing."""
        weights = self.weights[positions]
        total = float(weights.sum())
        return float((self.values[positions] * weights).sum() / total) if total else float("nan")


def row_scores(name: str, parts: np.ndarray, wholes: np.ndarray | None = None, *, greater: bool = True) -> RowScores:
    """Scores of rows as fractions of two `[rows]` arrays; without `wholes` each row weighs 1."""
    parts = np.asarray(parts, dtype=np.float64)
    weights = np.ones(len(parts)) if wholes is None else np.asarray(wholes, dtype=np.float64)
    values = np.divide(parts, weights, out=np.zeros(len(parts)), where=weights > 0)
    return RowScores(name, values, weights, greater)


def by_length(scores: RowScores, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Scores of rows grouped by their length in tokens, about as many rows in each group.

    Gives `{low, high, rows, <name of the score>}`, lengths inclusive; groups without weight are left out.
    """
    sizes = np.asarray(lengths)
    if not len(sizes):
        return []
    edges = np.unique(np.quantile(sizes, np.linspace(0, 1, _MOST_BINS + 1), method="lower"))
    places = np.clip(np.searchsorted(edges, sizes, side="right") - 1, 0, max(len(edges) - 2, 0))
    found = []
    for place in np.unique(places):
        rows = np.flatnonzero(places == place)
        value = scores.score(rows)
        if np.isfinite(value):
            low, high = int(sizes[rows].min()), int(sizes[rows].max())
            found.append({"low": low, "high": high, "rows": len(rows), scores.name: value})
    return found


def shortened(text: str, limit: int = LONGEST_TEXT) -> str:
    """A text of at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def mistake(row: int, text: str, label: str, predicted: str, score: float) -> dict[str, Any]:
    """One wrong prediction; `score` says how bad it is: the confidence in it, or the size of an error."""
    return {
        "row": int(row),
        "text": shortened(text),
        "label": shortened(label),
        "predicted": shortened(predicted),
        "score": float(score),
    }


def worst(found: Iterable[dict[str, Any]], most: int = MOST_MISTAKES) -> list[dict[str, Any]]:
    """The mistakes with the highest scores, worst first."""
    return sorted(found, key=lambda one: (-one["score"], one["row"]))[:most]


def single_label(
    probabilities: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    text: Callable[[int], str],
    rows: Sequence[int],
    threshold: float | None = None,
) -> dict[str, Any]:
    """Details of rows with one class each: `classes`, `confusion`, `calibration`, `mistakes`.

    `probabilities` is `[rows, classes]`, `labels` `[rows]`; `text` gives the text of a position, `rows` its number in
    the user's data, `threshold` is that of `chosen_class`. The confidence is the probability of the predicted class.
    """
    predicted = chosen_class(probabilities, threshold)
    confidence = probabilities[np.arange(len(predicted)), predicted].astype(np.float64)
    wrong = np.flatnonzero(predicted != labels)
    worst_first = wrong[np.argsort(-confidence[wrong], kind="stable")][:MOST_MISTAKES].tolist()
    return {
        "classes": _classes(per_class(probabilities, labels, names, threshold=threshold)),
        "confusion": {"labels": list(names), "matrix": confusion(probabilities, labels, threshold).tolist()},
        "calibration": {"of": "rows", **calibration(confidence, predicted == labels)},
        "mistakes_by": "confidence",
        "mistakes": [
            mistake(rows[i], text(int(i)), names[labels[i]], names[predicted[i]], float(confidence[i]))
            for i in worst_first
        ],
    }


def multi_label(
    probabilities: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    thresholds: Thresholds,
    *,
    text: Callable[[int], str],
    rows: Sequence[int],
) -> dict[str, Any]:
    """Details of rows with any number of classes: `classes`, `calibration` of all decisions, `mistakes`.

    Both arrays are `[rows, classes]`. The confidence of a wrong row is that of its most confident wrong
    decision, where a class that is left out counts with the probability against it.
    """
    # As in `metrics.classification`: a threshold rounded to float32 could cross the probability beside it.
    exact = probabilities.astype(np.float64)
    chosen, truth = exact >= np.asarray(thresholds, dtype=np.float64), labels > 0.5
    confidence = np.where(chosen, exact, 1 - exact)
    wrong = np.where(chosen != truth, confidence, -1.0).max(axis=1)
    places = np.argsort(-wrong, kind="stable")[:MOST_MISTAKES].tolist()

    def named(on: np.ndarray) -> str:
        return " + ".join(name for name, is_on in zip(names, on, strict=True) if is_on) or "(none)"

    return {
        "classes": _classes(per_class(probabilities, labels, names, thresholds)),
        "calibration": {"of": "rows x classes", **calibration(exact.reshape(-1), truth.reshape(-1))},
        "mistakes_by": "confidence",
        "mistakes": [
            mistake(rows[i], text(int(i)), named(truth[i]), named(chosen[i]), wrong[i]) for i in places if wrong[i] >= 0
        ],
    }


def choices(
    shares: Sequence[np.ndarray],
    labels: Sequence[int],
    options: Sequence[Sequence[str]],
    *,
    text: Callable[[int], str],
    rows: Sequence[int],
) -> dict[str, Any]:
    """Details of rows with options of their own: `calibration` and `mistakes`, options as texts.

    `shares` are the probabilities of each row's options, another number of them in each.
    """
    chosen = np.array([int(one.argmax()) for one in shares])
    confidence = np.array([float(one.max()) for one in shares])
    right = chosen == np.asarray(labels)
    return {
        "calibration": {"of": "rows", **calibration(confidence, right)},
        "mistakes_by": "confidence",
        "mistakes": worst(
            mistake(rows[i], text(i), options[i][labels[i]], options[i][chosen[i]], confidence[i])
            for i in np.flatnonzero(~right).tolist()
        ),
    }


def regression(
    predicted: np.ndarray, labels: np.ndarray, *, text: Callable[[int], str], rows: Sequence[int]
) -> dict[str, Any]:
    """Details of predicted numbers `[rows]`: `points` to plot (at most 400 rows) and the largest errors."""
    errors = np.abs(predicted - labels)
    places = np.argsort(-errors, kind="stable")[:MOST_MISTAKES].tolist()
    shown = np.unique(np.linspace(0, len(labels) - 1, min(len(labels), _MOST_POINTS)).astype(int))
    return {
        "points": [{"label": float(labels[i]), "predicted": float(predicted[i])} for i in shown],
        "mistakes_by": "error",
        "mistakes": [
            mistake(rows[i], text(int(i)), f"{labels[i]:.4g}", f"{predicted[i]:.4g}", errors[i])
            for i in places
            if errors[i] > 0
        ],
    }


def language(sums: np.ndarray, *, text: Callable[[int], str], rows: Sequence[int]) -> dict[str, Any]:
    """Details of predicted tokens, from `[rows, 3]` sums as in `metrics.language`: the `hardest` texts.

    Their score is the loss in nats a token; texts of fewer tokens than half the median are left out.
    """
    tokens = sums[:, 1]
    enough = np.flatnonzero((tokens > 0) & (tokens >= np.median(tokens) / 2))
    loss = sums[enough, 0] / tokens[enough]
    order = np.argsort(-loss, kind="stable")[:MOST_MISTAKES]
    return {
        "hardest": [
            {"row": int(rows[enough[i]]), "text": shortened(text(int(enough[i]))), "score": float(loss[i])}
            for i in order
        ]
    }


def _classes(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"label": c["name"], "precision": c["precision"], "recall": c["recall"], "f1": c["f1"], "rows": c["support"]}
        for c in found
    ]
