"""How far in front the text that belongs to a query stands among all candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlp_finetune.metrics.overlap import word_vectors

CUTS = (1, 5, 10)
NAMES = (*(f"recall_at_{cut}" for cut in CUTS), "mrr")
_CHUNK = 512


@dataclass(frozen=True)
class Candidates:
    """Distinct texts to choose from: `rows` are where each stands first, `right` and `own` are by query.

    `right` is the position of the text that belongs to the query, `own` that of a candidate equal to
    the query itself (-1 where there is none), which is passed over.
    """

    rows: list[int]
    right: np.ndarray
    own: np.ndarray


def candidates(queries: Sequence[str], positives: Sequence[str], others: Sequence[str] = ()) -> Candidates:
    """Candidates of all queries: the distinct texts of `positives` and `others`, in this order."""
    position: dict[str, int] = {}
    rows = []
    for i, text in enumerate([*positives, *others]):
        if text not in position:
            position[text] = len(position)
            rows.append(i)
    right = np.array([position[text] for text in positives])
    own = np.array([position.get(text, -1) for text in queries])
    return Candidates(rows, right, np.where(own == right, -1, own))


def ranks(similarity: Callable[[slice], Any], among: Candidates) -> np.ndarray:
    """Rank of each query's right candidate, from 1; of equal candidates the middle of their ranks.

    `similarity(queries)` gives `[queries, candidates]` for a slice of the queries. NaN where the right
    candidate's similarity is no number.
    """
    found = []
    for start in range(0, len(among.right), _CHUNK):
        part = slice(start, min(start + _CHUNK, len(among.right)))
        table = np.array(similarity(part), dtype=np.float64)
        each = np.arange(len(table))
        own = among.own[part]
        table[each[own >= 0], own[own >= 0]] = -np.inf
        score = table[each, among.right[part]][:, None]
        rank = 1 + (table > score).sum(1) + ((table == score).sum(1) - 1) / 2
        found.append(np.where(np.isnan(score[:, 0]), np.nan, rank))
    return np.concatenate(found)


def scores(rank: np.ndarray) -> dict[str, float]:
    """Share of queries whose right candidate is among the first 1, 5, 10, and the mean of 1 / rank."""
    if np.isnan(rank).any():
        return dict.fromkeys(NAMES, float("nan"))
    return {**{f"recall_at_{cut}": float((rank <= cut).mean()) for cut in CUTS}, "mrr": float((1 / rank).mean())}


def overlap_ranks(
    train_texts: Sequence[str], queries: Sequence[str], offered: Sequence[str], among: Candidates
) -> np.ndarray:
    """Ranks by the cosine of TF-IDF vectors: a simple rival; `offered` are the texts that `among.rows` count."""
    asked, found = word_vectors(train_texts, queries, [offered[i] for i in among.rows])
    return ranks(lambda part: (asked[part] @ found.T).toarray(), among)
