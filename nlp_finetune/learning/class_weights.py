"""Weights of classes: how much an item of each class adds to the loss.

The loss stays a sum over items divided by the number of items, so weights that are all 1 change nothing,
and `balanced` weights, whose mean over the training items is 1, leave the size of a step as it was.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nlp_finetune.errors import InputError
from nlp_finetune.learning.losses import IGNORED


def count_classes(labels: Iterable[Any], classes: int) -> tuple[np.ndarray, int]:
    """Training items of each class, `[classes]`, and what they are counted out of.

    `labels` has one entry a row: a class number, class numbers of tokens (`IGNORED` ones do not count), or one
    0/1 number a class (`float`), of which the positive ones are counted out of all rows.
    """
    counts = np.zeros(classes, dtype=np.int64)
    total = 0
    for label in labels:
        values = np.asarray(label)
        if values.dtype.kind == "f":
            counts += (values > 0.5).astype(np.int64)
            total += 1
        else:
            kept = values[values != IGNORED].reshape(-1)
            counts += np.bincount(kept, minlength=classes)
            total += len(kept)
    return counts, total


def balanced(counts: np.ndarray, total: int, *, positives: bool) -> list[float]:
    """Weights that give every class the same say, by its count in the training rows.

    One class a row: total / (classes x count), as scikit-learn's `class_weight="balanced"`; the classes that occur
    share the total. With `positives` (several classes a row): negatives / positives of each class. A class that
    does not occur has weight 1.
    """
    there = counts > 0
    safe = np.maximum(counts, 1)
    found = (total - counts) / safe if positives else total / (max(1, int(there.sum())) * safe)
    # A class that every row has would weigh nothing, and the row's only positive would not be learned.
    return [float(w) for w in np.where(there & (found > 0), found, 1.0)]


def prior(counts: np.ndarray, total: int, *, positives: bool) -> list[float]:
    """Outputs `[classes]` whose probabilities are how often each class occurs, one row added of each so that none is 0.

    One class a row: logarithms of shares. With `positives` (several classes a row): log odds of each class. A head that
    starts there need not learn first what is rare, which with many classes takes longer than the rest (Lin et al. 2017,
    Focal Loss for Dense Object Detection, section 3.3, for one class; the same for each here).
    """
    if positives:
        share = (counts + 1) / (total + 2)
        return [float(x) for x in np.log(share / (1 - share))]
    return [float(x) for x in np.log((counts + 1) / (total + len(counts)))]


def by_name(given: Mapping[str, float], names: Sequence[str]) -> list[float]:
    """Weights in the order of the classes, 1 where none is given.

    Raises `InputError` for a name that is no class, and where no class counts at all.
    """
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            meant = f"did you mean {near[0]!r}?" if near else f"the classes are {', '.join(map(repr, names[:20]))}."
            raise InputError(f"loss.class_weights: no class is called {name!r}; {meant}")
    weights = [float(given.get(name, 1.0)) for name in names]
    if not any(weights):
        raise InputError("loss.class_weights: all weights are 0; nothing would be learned.")
    return weights


def describe(weights: Sequence[float], names: Sequence[str], *, most: int = 8) -> str:
    """The weights in one line, the largest first."""
    order = sorted(range(len(names)), key=lambda i: -weights[i])
    shown = ", ".join(f"{names[i]} {weights[i]:.3g}" for i in order[:most])
    return shown + (f" and {len(order) - most} more" if len(order) > most else "")
