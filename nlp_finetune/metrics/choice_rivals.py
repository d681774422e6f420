"""Simple rivals for multiple choice: scores `[options]` for each row, the highest is the answer.

Data that such a rival solves give the answer away: by its place, its length, or words of the question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from nlp_finetune.metrics.overlap import cosines, word_vectors

Options = Sequence[Sequence[str]]


def commonest_position(train_labels: Sequence[int], options: Options) -> list[np.ndarray]:
    """How often the right option stood at each position in training."""
    counts = Counter(train_labels)
    return [np.array([counts[i] for i in range(len(row))], dtype=float) for row in options]


def longest_option(options: Options) -> list[np.ndarray]:
    """Number of characters of each option."""
    return [np.array([len(option) for option in row], dtype=float) for row in options]


def most_similar(train_texts: Sequence[str], questions: Sequence[str], options: Options) -> list[np.ndarray]:
    """Cosine of TF-IDF vectors of question and option; the weights are those of `train_texts`."""
    asked, offered = word_vectors(train_texts, questions, [option for row in options for option in row])
    owner = np.repeat(np.arange(len(options)), [len(row) for row in options])
    scores = cosines(asked[owner], offered)
    return np.split(scores, np.cumsum([len(row) for row in options])[:-1])
