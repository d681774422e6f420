"""What stands behind the F1 of entities: by type, which types are confused, and the worst mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nlp_finetune.data import tags as iob2
from nlp_finetune.metrics.calibration import calibration
from nlp_finetune.metrics.details import RowScores, mistake, row_scores, worst
from nlp_finetune.metrics.entities import Tags, counted

_OUTSIDE = "O"
_NONE = "(no entity)"


def scores_of_rows(true: Tags, predicted: Tags, types: int) -> RowScores:
    """F1 of entities, row by row; rows without entities, true or found, weigh nothing."""
    right, found, wanted = np.moveaxis(counted(true, predicted, types).sum(axis=1), -1, 0)
    return row_scores("f1", 2 * right, found + wanted)


def by_type(true: Tags, predicted: Tags, types: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each type, and `rows`: how many entities there truly are."""
    totals = counted(true, predicted, len(types)).sum(axis=0)
    return [
        {
            "label": kind,
            "precision": float(right / max(found, 1)),
            "recall": float(right / max(wanted, 1)),
            "f1": float(2 * right / max(found + wanted, 1)),
            "rows": int(wanted),
        }
        for kind, (right, found, wanted) in zip(types, totals, strict=True)
    ]


def word_confusion(true: Tags, predicted: Tags, types: Sequence[str]) -> dict[str, Any]:
    """Words by their true type (first axis) and the predicted one; `O` is outside of entities."""
    size = len(types) + 1
    # Tags are 0 for outside, then B- and I- of each type: halved upwards they are types.
    flat = [(np.concatenate([np.asarray(row, dtype=np.int64) for row in part]) + 1) // 2 for part in (true, predicted)]
    table = np.bincount(flat[0] * size + flat[1], minlength=size * size).reshape(size, size)
    return {"labels": [_OUTSIDE, *types], "matrix": table.tolist(), "of": "words"}


def details(
    true: Tags,
    predicted: Tags,
    confidence: Sequence[np.ndarray],
    types: Sequence[str],
    *,
    words: Sequence[Sequence[str]],
    rows: Sequence[int],
) -> dict[str, Any]:
    """`classes`, `confusion`, `calibration` of predicted entities, and `mistakes`, the most confident first.

    `confidence` holds the probability of every word's tag, `[documents][words]`; that of an entity is
    its words' mean. `rows` are the numbers of the documents in the user's data.
    """
    judged: list[tuple[float, bool]] = []
    mistakes = []
    for document, (wanted, found) in enumerate(zip(true, predicted, strict=True)):
        truth, guesses = iob2.entities(wanted), iob2.entities(found)
        for guess in guesses:
            sure = float(confidence[document][guess[0] : guess[1]].mean())
            judged.append((sure, guess in truth))
        for label, wrong, first, end in _disagreements(truth, guesses):
            mistakes.append(
                mistake(
                    rows[document],
                    " ".join(words[document]),
                    _named(label, words[document], types),
                    _named(wrong, words[document], types),
                    float(confidence[document][first:end].mean()),
                )
            )
    found_details: dict[str, Any] = {
        "classes": by_type(true, predicted, types),
        "confusion": word_confusion(true, predicted, types),
        "mistakes_by": "confidence",
        "mistakes": worst(mistakes),
    }
    if judged:
        confidences, right = map(np.array, zip(*judged, strict=True))
        found_details["calibration"] = {"of": "predicted entities", **calibration(confidences, right)}
    return found_details


def _disagreements(
    truth: Sequence[iob2.Entity], guesses: Sequence[iob2.Entity]
) -> Iterator[tuple[iob2.Entity | None, iob2.Entity | None, int, int]]:
    """Wrong guesses beside what is true there, then true entities that nothing was guessed for."""
    for guess in guesses:
        if guess not in truth:
            label = next((t for t in truth if t[0] < guess[1] and guess[0] < t[1]), None)
            yield label, guess, guess[0], guess[1]
    for label in truth:
        if not any(g[0] < label[1] and label[0] < g[1] for g in guesses):
            yield label, None, label[0], label[1]


def _named(entity: iob2.Entity | None, words: Sequence[str], types: Sequence[str]) -> str:
    if entity is None:
        return _NONE
    return f"{types[entity[2]]}: {' '.join(words[entity[0] : entity[1]])}"
