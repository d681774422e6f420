"""Exact match and F1 of answers, as SQuAD measures them, and with characters as words for Chinese.

English texts are normalised as in SQuAD's evaluation script (Rajpurkar et al. 2016): lower case, no
punctuation, no articles. A text with Chinese or Japanese characters also loses their punctuation, and
each of those characters counts as a word, as in MLQA (Lewis et al. 2020). A question without an
answer is right if nothing is answered (Rajpurkar et al. 2018).
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_CJK = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f])")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


@lru_cache(maxsize=100_000)
def tokens(text: str) -> tuple[str, ...]:
    """Normalised words of a text; Chinese and Japanese characters are words of their own."""
    text = text.lower().translate(_ASCII_PUNCTUATION)
    if _CJK.search(text):
        text = "".join(c for c in text if not unicodedata.category(c).startswith("P"))
    return tuple(_CJK.sub(r" \1 ", _ARTICLES.sub(" ", text)).split())


@dataclass(frozen=True)
class Scores:
    """Exact match and F1 of each row `[rows]`, 0 to 1, and whether it has an answer."""

    exact: np.ndarray
    f1: np.ndarray
    answerable: np.ndarray

    def metrics(self, positions: np.ndarray | None = None) -> dict[str, float]:
        """Means over all rows, or those at `positions`; by kind too where both kinds are among them."""
        chosen = slice(None) if positions is None else positions
        exact, f1, answerable = self.exact[chosen], self.f1[chosen], self.answerable[chosen]
        found = {"exact_match": float(exact.mean()), "f1": float(f1.mean())}
        if answerable.any() and not answerable.all():
            for kind, rows in (("answerable", answerable), ("unanswerable", ~answerable)):
                found[f"exact_match_{kind}"] = float(exact[rows].mean())
                found[f"f1_{kind}"] = float(f1[rows].mean())
        return found


def score(predicted: Sequence[str], gold: Sequence[Sequence[str]]) -> Scores:
    """Score one text a row against its gold answers, the best of which counts.

    An empty text is "no answer", an empty list of gold answers a question without one.
    """
    pairs = [_score_one(text, answers) for text, answers in zip(predicted, gold, strict=True)]
    exact, f1 = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return Scores(exact, f1, np.array([bool(answers) for answers in gold], dtype=bool))


def _score_one(text: str, answers: Sequence[str]) -> tuple[float, float]:
    if not text or not answers:
        right = float(not text and not answers)
        return right, right
    pairs = [(float(tokens(text) == tokens(answer)), _overlap(tokens(text), tokens(answer))) for answer in answers]
    return max(exact for exact, _ in pairs), max(f1 for _, f1 in pairs)


def _overlap(found: Sequence[str], wanted: Sequence[str]) -> float:
    """Harmonic mean of the shares of words that are in the other text."""
    if not found or not wanted:
        return float(found == wanted)
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted))


def best_threshold(scores: np.ndarray, answered: np.ndarray, silent: np.ndarray) -> float:
    """The threshold on `scores` below which no answer is given that makes the mean gain largest.

    All are `[rows]`: the score of a row's best answer, what is gained by giving it, and what by
    giving none. Of thresholds that are as good the one nearest to 0 is taken, and midway between two
    scores.
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    # gain[k]: the k rows with the lowest scores are left without an answer.
    gain = np.concatenate([[0.0], np.cumsum((silent - answered)[order])])
    cuts = np.concatenate([[ordered[0] - 1], (ordered[:-1] + ordered[1:]) / 2, [ordered[-1] + 1]])
    apart = np.concatenate([[True], ordered[:-1] < ordered[1:], [True]])
    best = apart & (gain >= gain[apart].max() - 1e-9)
    return float(min(cuts[best], key=abs))
