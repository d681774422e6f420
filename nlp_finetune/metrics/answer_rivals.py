"""Simple rivals of question answering: what a model that reads must beat."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from nlp_finetune.metrics.answers import tokens

_SENTENCE_END = re.compile("(?<=[\u3002\uff01\uff1f])|(?<=[.!?])\\s+|\n+")
"""Full stop, exclamation and question mark, those of Chinese and Japanese first, or the end of a line."""


def closest_sentences(questions: Sequence[str], contexts: Sequence[str]) -> list[str]:
    """Answer each question with the sentence of its context that shares most with it.

    Shared words count by their rarity among all sentences (inverse document frequency), relative to
    the root of the sentence's length.
    """
    split = lru_cache(maxsize=None)(_sentences)
    frequency = Counter(word for context in set(contexts) for _, words in split(context) for word in words)
    total = max(1, sum(len(split(context)) for context in set(contexts)))

    def overlap(words: frozenset[str], question: frozenset[str]) -> float:
        shared = sum(math.log(1 + total / frequency[word]) for word in words & question)
        return shared / math.sqrt(len(words) or 1)

    answers = []
    for question, context in zip(questions, contexts, strict=True):
        asked = frozenset(tokens(question))
        # The first of equally close ones: max keeps it.
        answers.append(max(split(context), key=lambda sentence: overlap(sentence[1], asked))[0])
    return answers


def _sentences(context: str) -> list[tuple[str, frozenset[str]]]:
    """Sentences of a text, each with its words."""
    found = [part.strip() for part in _SENTENCE_END.split(context) if part.strip()]
    return [(sentence, frozenset(tokens(sentence))) for sentence in found or [context]]
