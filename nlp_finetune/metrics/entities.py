"""Scores of entities, strict IOB2: right are those whose type, first and last word are right (seqeval)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from nlp_finetune.data import tags as iob2

Tags = Sequence[Sequence[int]]
"""Valid IOB2 tags as numbers, `[documents][words]`."""

AVERAGES = ("f1", "precision", "recall", "f1_macro")
_PARTS = ("f1", "precision", "recall")


def names(types: Sequence[str]) -> tuple[str, ...]:
    """Names of the metrics, for entities of some types."""
    return (*AVERAGES, "accuracy", *(f"{part}_{kind}" for kind in types for part in _PARTS))


def scores(true: Tags, predicted: Tags, types: Sequence[str]) -> dict[str, float]:
    """Precision, recall and F1 of entities over all documents and by type, and `accuracy` of words.

    `f1_macro` is the mean over the types that occur in either. What would divide by zero is 0. They are
    computed by seqeval (`mode="strict"`, IOB2). Raises `ValueError` where documents differ in length.
    """
    from seqeval.metrics import classification_report
    from seqeval.scheme import IOB2

    hits, words = _right_words(true, predicted).sum(axis=0)
    report = {}
    if any(map(any, true)) or any(map(any, predicted)):
        # Numbers for names, as seqeval takes hyphens off the ends of a type.
        plain = iob2.names([str(i) for i in range(len(types))])
        both = [[[plain[tag] for tag in document] for document in part] for part in (true, predicted)]
        report = classification_report(*both, mode="strict", scheme=IOB2, zero_division=0, output_dict=True)
    keys = {"f1": "f1-score", "precision": "precision", "recall": "recall"}

    def value(row: str, part: str) -> float:
        return float(report[row][keys[part]]) if row in report else 0.0

    found = {part: value("micro avg", part) for part in _PARTS}
    found |= {"f1_macro": value("macro avg", "f1"), "accuracy": float(hits / max(words, 1))}
    return found | {f"{part}_{kind}": value(str(i), part) for i, kind in enumerate(types) for part in _PARTS}


def resampled(name: str, true: Tags, predicted: Tags, types: Sequence[str]) -> Callable[[np.ndarray], float]:
    """Function from positions of documents to one of the `scores` of those documents, fast.

    Entities are counted once a document, so that a resample is a sum of counts.
    """
    documents = len(true)

    def weights(positions: np.ndarray) -> np.ndarray:
        return np.bincount(positions, minlength=documents).astype(float)

    if name == "accuracy":
        right = _right_words(true, predicted)
        return lambda positions: float(_share(*(weights(positions) @ right)))
    counts = counted(true, predicted, len(types))
    present = counts.sum(axis=(0, 2)) > 0
    if name == "f1_macro":
        flat = counts[:, present].reshape(documents, -1)
        return lambda positions: (
            float(_part("f1", (weights(positions) @ flat).reshape(-1, 3)).mean()) if present.any() else 0.0
        )
    part, _, kind = name.partition("_")
    chosen = counts[:, list(types).index(kind)] if kind else counts.sum(axis=1)
    return lambda positions: float(_part(part, weights(positions) @ chosen))


def counted(true: Tags, predicted: Tags, types: int) -> np.ndarray:
    """Right, predicted and true entities, `[documents, types, 3]`."""
    counts = np.zeros((len(true), types, 3))
    for document, pair in enumerate(zip(true, predicted, strict=True)):
        wanted, found = (set(iob2.entities(tags)) for tags in pair)
        for column, chosen in enumerate((wanted & found, found, wanted)):
            for kind, count in Counter(kind for _, _, kind in chosen).items():
                counts[document, kind, column] = count
    return counts


def _right_words(true: Tags, predicted: Tags) -> np.ndarray:
    """Words with the right tag, and all words, `[documents, 2]`."""
    pairs = zip(true, predicted, strict=True)
    return np.array([(sum(a == b for a, b in zip(t, p, strict=True)), len(t)) for t, p in pairs]).reshape(-1, 2)


def _part(part: str, counts: np.ndarray) -> np.ndarray:
    """F1, precision or recall from counts `[..., 3]`."""
    right, found, wanted = np.moveaxis(counts, -1, 0)
    if part == "f1":
        return _share(2 * right, found + wanted)
    return _share(right, found if part == "precision" else wanted)


def _share(part: np.ndarray, of: np.ndarray) -> np.ndarray:
    return np.asarray(part / np.maximum(of, 1))


def dictionary(
    words: Sequence[Sequence[str]], tags: Tags, unseen: Sequence[Sequence[str]], types: int
) -> list[list[int]]:
    """Tag unseen documents by looking up the entities of the tagged ones: the longest match, its usual type.

    A phrase that stands outside of entities more often than it is one is left out. This is the baseline
    of the CoNLL-2003 shared task (Tjong Kim Sang and De Meulder 2003) but for that.
    """
    kinds: dict[tuple[str, ...], Counter[int]] = {}
    for document, numbers in zip(words, tags, strict=True):
        for first, end, kind in iob2.entities(numbers):
            kinds.setdefault(tuple(document[first:end]), Counter())[kind] += 1
    outside = Counter(
        word
        for document, numbers in zip(words, tags, strict=True)
        for word, number in zip(document, numbers, strict=True)
        if not number
    )
    known = {
        phrase: found.most_common(1)[0][0]
        for phrase, found in kinds.items()
        if len(phrase) > 1 or outside[phrase[0]] <= found.total()
    }
    longest = max(map(len, known), default=0)
    return [_looked_up(document, known, longest) for document in unseen]


def _looked_up(document: Sequence[str], known: dict[tuple[str, ...], int], longest: int) -> list[int]:
    tags: list[int] = []
    while len(tags) < len(document):
        here = len(tags)
        sizes = range(min(longest, len(document) - here), 0, -1)
        size = next((n for n in sizes if tuple(document[here : here + n]) in known), 0)
        kind = known.get(tuple(document[here : here + size]), 0)
        tags += [2 * kind + 1] + [2 * kind + 2] * (size - 1) if size else [0]
    return tags
