"""How close written texts come to references: ROUGE (rouge-score), chrF and BLEU (sacrebleu), and simple rivals.

rouge-score's own tokenizer knows a to z and digits alone: a Chinese text has no tokens there and German
loses its umlauts. The one here gives the same for English, and takes words of every script, or characters
where a script puts no space between words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import regex

NAMES = ("rougeL", "rouge1", "rouge2", "chrf", "bleu", "exact_match")
"""ROUGE F1 and exact matches from 0 to 1, averaged over rows; chrF2 and BLEU from 0 to 100, of all rows together."""
_ROUGE = ("rouge1", "rouge2", "rougeL")
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""Scripts that put no space between words."""
_WORD = regex.compile(rf"[{_UNSPACED}]|[\p{{L}}\p{{M}}\p{{N}}--{_UNSPACED}]+", regex.V1)
_UNSPACED_LETTER = regex.compile(rf"[{_UNSPACED}]")
_LETTER = regex.compile(r"\p{L}")
_SHORTEST_STEMMED = 4


class Tokenizer:
    """Words of a text in lower case, English ones without their endings (Porter), for `rouge_score`."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self._stem = cache(PorterStemmer().stem)

    def tokenize(self, text: str) -> list[str]:
        """The words; characters of scripts without spaces are words."""
        found = _WORD.findall(text.lower())
        return [self._stem(w) if len(w) >= _SHORTEST_STEMMED and w.isascii() else w for w in found]


def bleu_tokenizer(texts: Sequence[str]) -> str:
    """Sacrebleu's tokenizer for texts like these: `13a` (words), `zh` (Chinese) or `char` (characters)."""
    sample = " ".join(texts)
    letters, unspaced = len(_LETTER.findall(sample)), len(_UNSPACED_LETTER.findall(sample))
    if 2 * unspaced <= letters:
        return "13a"
    return "zh" if len(regex.findall(r"\p{Han}", sample)) > 0.95 * unspaced else "char"


@dataclass(frozen=True)
class Statistics:
    """What the scores of any choice of rows are computed from, one row each.

    `means` maps names to scores `[rows]` that are averaged; `counts` maps names to n-gram counts `[rows, k]`
    that are summed, and `corpus` to the sacrebleu metric that makes a score of the sums.
    """

    means: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]
    corpus: dict[str, Any]

    def score(self, name: str, positions: np.ndarray | None = None) -> float:
        """One score of the rows at `positions`, of all rows by default."""
        chosen: Any = slice(None) if positions is None else positions
        if name in self.means:
            return float(self.means[name][chosen].mean())
        sums = self.counts[name][chosen].sum(0)
        # Not public, but how sacrebleu resamples itself; a test compares with its `corpus_score`.
        return float(self.corpus[name]._compute_score_from_stats(sums.tolist()).score)


def measure(written: Sequence[str], references: Sequence[Sequence[str]], *, bleu: str) -> Statistics:
    """Compare each text with its references; the best one counts where there are several.

    `bleu` is the tokenizer that BLEU uses. ROUGE: Lin 2004; chrF2: Popović 2015; BLEU: Papineni et al. 2002,
    with sacrebleu's exponential smoothing (Post 2018).
    """
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    scorer = RougeScorer(list(_ROUGE), tokenizer=Tokenizer())
    rouge = [scorer.score_multi(list(known), text) for text, known in zip(written, references, strict=True)]
    means = {name: np.array([one[name].fmeasure for one in rouge]) for name in _ROUGE}
    same = [text.strip() in {one.strip() for one in known} for text, known in zip(written, references, strict=True)]
    means["exact_match"] = np.array(same, dtype=float)
    most = max((len(known) for known in references), default=1)
    # None is a reference that is not there; an empty one would count.
    streams: list[Any] = [[known[i] if i < len(known) else None for known in references] for i in range(most)]
    corpus = {"chrf": CHRF(), "bleu": BLEU(tokenize=bleu, force=True)}
    counts = {name: np.array(metric._extract_corpus_statistics(written, streams)) for name, metric in corpus.items()}
    return Statistics(means, counts, corpus)


def scores(statistics: Statistics) -> dict[str, float]:
    """All scores, by name."""
    return {name: statistics.score(name) for name in NAMES}


def rivals(train: Sequence[str], sources: Sequence[str], *, bleu: str) -> dict[str, list[str]]:
    """Texts of two rivals that read nothing: `copy`, the source, and `lead`, as much of its beginning as targets have.

    `train` are the targets that were learned from; their median length, in words or characters, is what
    `lead` takes.
    """
    by_words = bleu == "13a"

    def parts(text: str) -> list[str]:
        return text.split() if by_words else list(text)

    length = int(np.median([len(parts(text)) for text in train]))
    between = " " if by_words else ""
    return {"copy": list(sources), "lead": [between.join(parts(text)[:length]) for text in sources]}
