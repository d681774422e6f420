"""How well tokens are predicted: loss, perplexity and accuracy, and rivals that only count tokens.

Everything is weighted by tokens, so that neither the cut into rows nor into batches changes a score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

NAMES = ("perplexity", "token_accuracy")
_LARGEST_EXPONENT = 700.0
"""e to this power is still a number."""


def language(sums: np.ndarray) -> dict[str, float]:
    """`loss` (nats a token), `perplexity` (its exponential) and `token_accuracy`.

    `sums` is `[rows, 3]`: negative log likelihood, tokens, tokens predicted right. All three scores are
    NaN where there is no token.
    """
    nll, tokens, right = np.asarray(sums, dtype=np.float64).reshape(-1, 3).sum(0)
    if not tokens:
        return {"loss": math.nan, "perplexity": math.nan, "token_accuracy": math.nan}
    loss = float(nll / tokens)
    perplexity = math.exp(min(loss, _LARGEST_EXPONENT))
    return {"loss": loss, "perplexity": perplexity, "token_accuracy": float(right / tokens)}


def rivals(
    train: Sequence[tuple[np.ndarray, np.ndarray]], others: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores of two models that count, by split and name.

    Each sequence is `(token ids, whether to predict each)`, both `[length]`; a first token is never
    predicted. `unigram` knows how frequent tokens are (add-one smoothing); `bigram` also which token
    precedes, interpolated with it (Witten and Bell 1991, The zero-frequency problem).
    """
    before, after = _pairs(train)
    every = [ids for split in (train, *others.values()) for ids, _ in split]
    size = 1 + max((int(ids.max()) for ids in every if len(ids)), default=0)
    counts = np.bincount(after, minlength=size)
    unigram = (counts + 1) / (counts.sum() + size)
    bigrams = _Bigrams(before, after, unigram)
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for name, sequences in others.items():
        first, second = _pairs(sequences)
        scores[name] = {
            "unigram": _scored(unigram[second], second == counts.argmax()),
            "bigram": _scored(bigrams.probability(first, second), bigrams.likeliest(first) == second),
        }
    return scores


def frequencies(train: np.ndarray, others: Mapping[str, np.ndarray]) -> dict[str, dict[str, dict[str, float]]]:
    """Scores of the `unigram` rival on tokens `[count]` of other splits that are hidden whatever their place."""
    size = 1 + max(int(ids.max(initial=0)) for ids in (train, *others.values()))
    counts = np.bincount(train, minlength=size)
    unigram = (counts + 1) / (counts.sum() + size)
    return {name: {"unigram": _scored(unigram[ids], ids == counts.argmax())} for name, ids in others.items()}


def _pairs(sequences: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Every token to predict, and the one before it."""
    before = [ids[:-1][wanted[1:]] for ids, wanted in sequences]
    after = [ids[1:][wanted[1:]] for ids, wanted in sequences]
    none = np.zeros(0, dtype=np.int64)
    return np.concatenate([none, *before]), np.concatenate([none, *after])


class _Bigrams:
    """Counts of neighbours; p(w | v) = (c(v, w) + T(v) p(w)) / (c(v) + T(v)), T(v) the tokens seen after v."""

    def __init__(self, before: np.ndarray, after: np.ndarray, unigram: np.ndarray) -> None:
        self.unigram, self.size = unigram, len(unigram)
        self.keys, self.counts = np.unique(before * self.size + after, return_counts=True)
        heads = self.keys // self.size
        self.seen = np.bincount(before, minlength=self.size)
        self.types = np.bincount(heads, minlength=self.size)
        self.best = np.full(self.size, unigram.argmax())
        # The last write wins, so the most frequent follower of each token stays.
        order = np.argsort(self.counts, kind="stable")
        self.best[heads[order]] = self.keys[order] % self.size

    def probability(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        found = np.minimum(np.searchsorted(self.keys, before * self.size + after), max(len(self.keys) - 1, 0))
        known = self.keys[found] == before * self.size + after
        types, seen = self.types[before], self.seen[before]
        mixed = (np.where(known, self.counts[found], 0) + types * self.unigram[after]) / np.maximum(seen + types, 1)
        return np.asarray(np.where(seen > 0, mixed, self.unigram[after]))

    def likeliest(self, before: np.ndarray) -> np.ndarray:
        return np.asarray(self.best[before])


def _scored(probabilities: np.ndarray, right: np.ndarray) -> dict[str, float]:
    return language(np.stack([-np.log(probabilities), np.ones(len(right)), right], axis=-1))
