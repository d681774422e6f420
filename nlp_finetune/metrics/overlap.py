"""How much texts have in common on their surface: rivals for models that should see more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer


def word_vectors(train_texts: Sequence[str], *sides: Sequence[str]) -> list[Any]:
    """TF-IDF vectors of unit length, one sparse matrix a side; the weights are those of `train_texts`.

    Words are cut into 2 to 4 characters, so that inflections and Chinese count.
    """
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, dtype=np.float32)
    # A text of its own: training texts without any character would leave no features at all.
    vectorizer.fit([*train_texts, "text"])
    return [vectorizer.transform(side) for side in sides]


def cosines(left: Any, right: Any) -> np.ndarray:
    """Cosine of each row of one sparse matrix of unit rows with the same row of another, `[rows]`."""
    return np.asarray(left.multiply(right).sum(axis=1)).reshape(-1)


def shared_words(left: Sequence[str], right: Sequence[str]) -> np.ndarray:
    """Share of the words of both texts that stand in both (Jaccard), `[rows]`."""
    found = []
    for one, other in zip(left, right, strict=True):
        words, others = set(one.lower().split()), set(other.lower().split())
        found.append(len(words & others) / max(1, len(words | others)))
    return np.array(found)
