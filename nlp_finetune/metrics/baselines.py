"""Simple rivals: what a model must beat to be worth its cost.

Each takes training rows and gives for other rows what a model would: probabilities or numbers. All
are safe on tiny data: where a rival cannot be fitted it falls back to class shares or the mean.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from itertools import islice
from typing import Any, Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

_MAX_TRAIN_ROWS = 20_000
"""More rows make the rival slower than they make it better."""
_MANY_ROWS = 1_000
"""From here on a feature must occur in two rows: half the memory for the same accuracy."""
_CJK = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
_CJK_SHARE = 0.2
"""Chinese and Japanese have no spaces: from this share of all characters on, characters are the words."""
_INVERSE_PENALTY = 10.0
"""C of the logistic regression: weaker than scikit-learn's 1, and as good or better on 4 data sets tried."""


def majority(train_labels: np.ndarray, classes: int, rows: int) -> np.ndarray:
    """Give every row the class shares of the training rows: probabilities `[rows, classes]`.

    `train_labels` is `[train rows]` of class numbers, or `[train rows, classes]` of 0 and 1.
    """
    labels = np.asarray(train_labels)
    if labels.ndim == 2:
        shares = labels.mean(axis=0, dtype=np.float64)
    else:
        shares = np.bincount(labels.astype(np.int64), minlength=classes) / len(labels)
    return np.tile(shares, (rows, 1))


def mean_regression(train_targets: np.ndarray, rows: int) -> np.ndarray:
    """Give every row the mean of the training targets: `[rows]`."""
    return np.full(rows, np.mean(train_targets, dtype=np.float64))


def tfidf(
    train_texts: Sequence[str],
    train_labels: np.ndarray,
    texts: Sequence[str],
    *,
    classes: int,
    seed: int = 0,
) -> np.ndarray:
    """Fit a logistic regression on TF-IDF features, one class against the rest: `[rows, classes]`.

    `train_labels` is `[train rows]` of class numbers. Features are words and word pairs, or characters
    up to three where the text is Chinese or Japanese. At most 20,000 training rows are used, drawn with
    `seed`.
    """
    labels = np.asarray(train_labels).astype(np.int64)
    truth = np.zeros((len(labels), classes))
    truth[np.arange(len(labels)), labels] = 1.0
    probabilities = tfidf_multi_label(train_texts, truth, texts, seed=seed)
    total = probabilities.sum(axis=1, keepdims=True)
    # Where every class says no, its shares are all that is known.
    safe = np.where(total > 0, total, 1.0)
    return np.where(total > 0, probabilities / safe, majority(labels, classes, len(texts)))


def tfidf_multi_label(
    train_texts: Sequence[str], train_labels: np.ndarray, texts: Sequence[str], *, seed: int = 0
) -> np.ndarray:
    """Fit one logistic regression on TF-IDF features for each class: probabilities `[rows, classes]`.

    `train_labels` is `[train rows, classes]` of 0 and 1; features and limits are those of `tfidf`.
    """
    labels = np.asarray(train_labels)
    kept = _sample(len(train_texts), seed)
    shares = majority(labels, labels.shape[1], len(texts))
    features = _features([train_texts[i] for i in kept], texts)
    if features is None:
        return shares
    columns = [_one_class(*features, labels[kept, k], shares[:, k], seed) for k in range(labels.shape[1])]
    return np.stack(columns, axis=1)


def tfidf_regression(
    train_texts: Sequence[str], train_targets: np.ndarray, texts: Sequence[str], *, seed: int = 0
) -> np.ndarray:
    """Fit a ridge regression on TF-IDF features: numbers `[rows]`.

    `train_targets` is `[train rows]`; features and limits are those of `tfidf`.
    """
    targets = np.asarray(train_targets, dtype=np.float64).reshape(-1)
    kept = _sample(len(train_texts), seed)
    features = _features([train_texts[i] for i in kept], texts)
    if features is None:
        return mean_regression(targets, len(texts))
    train, other = features
    return np.asarray(Ridge().fit(train, targets[kept]).predict(other), dtype=np.float64)


def rivals(
    problem: Literal["single_label", "multi_label", "regression"],
    train_texts: Sequence[str],
    train_labels: np.ndarray,
    texts: Sequence[str],
    *,
    classes: int,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Fit the rivals of a problem: `majority` (`mean` for regression) and `tfidf`, by name.

    Each gives `[rows, classes]`, for regression `[rows, 1]`.
    """
    rows = len(texts)
    if problem == "regression":
        learned = tfidf_regression(train_texts, train_labels, texts, seed=seed)
        return {"mean": mean_regression(train_labels, rows)[:, None], "tfidf": learned[:, None]}
    shares = majority(train_labels, classes, rows)
    if problem == "multi_label":
        return {"majority": shares, "tfidf": tfidf_multi_label(train_texts, train_labels, texts, seed=seed)}
    return {
        "majority": shares,
        "tfidf": tfidf(train_texts, train_labels, texts, classes=classes, seed=seed),
    }


def _sample(rows: int, seed: int) -> np.ndarray:
    """Positions of the training rows that are used, in order."""
    if rows <= _MAX_TRAIN_ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, size=_MAX_TRAIN_ROWS, replace=False))


def _features(train_texts: Sequence[str], texts: Sequence[str]) -> tuple[Any, Any] | None:
    """TF-IDF matrices of both, or None where the training texts hold no feature at all."""
    by_character = _is_cjk(train_texts)
    vectorizer = TfidfVectorizer(
        analyzer="char" if by_character else "word",
        ngram_range=(1, 3) if by_character else (1, 2),
        token_pattern=None if by_character else r"\w+",
        min_df=2 if len(train_texts) >= _MANY_ROWS else 1,
        sublinear_tf=True,
        dtype=np.float32,
    )
    try:
        return vectorizer.fit_transform(train_texts), vectorizer.transform(texts)
    except ValueError as error:
        # The one ValueError that strings can cause: no text has a word, or no word occurs twice.
        if "vocabulary" in str(error) or "no terms remain" in str(error).lower():
            return None
        raise


def _is_cjk(texts: Sequence[str]) -> bool:
    sample = "".join(islice((text[:200] for text in texts), 1000))
    return len(_CJK.findall(sample)) > _CJK_SHARE * max(len(sample), 1)


def _one_class(train: Any, other: Any, positive: np.ndarray, share: np.ndarray, seed: int) -> np.ndarray:
    """Probability of one class; its share where all training rows agree, for then nothing can be fitted."""
    truth = positive > 0.5
    if truth.all() or not truth.any():
        return share
    model = LogisticRegression(C=_INVERSE_PENALTY, solver="liblinear", dual=True, random_state=seed)
    with warnings.catch_warnings():
        # Stopped at the iteration limit it is still a fair rival, and a bounded time is promised.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train, truth)
    return np.asarray(model.predict_proba(other)[:, 1], dtype=np.float64)
