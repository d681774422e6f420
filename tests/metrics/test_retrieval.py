"""Ranks of right candidates, and what is made of them."""

import numpy as np
import pytest

from nlp_finetune.metrics import retrieval
from nlp_finetune.metrics.overlap import cosines, shared_words, word_vectors


def test_every_text_is_a_candidate_once() -> None:
    among = retrieval.candidates(["q1", "q2", "q3"], ["a", "b", "a"], ["c", "b", "q2"])
    assert among.rows == [0, 1, 3, 5]
    assert among.right.tolist() == [0, 1, 0]
    assert among.own.tolist() == [-1, 3, -1]


def test_a_rank_counts_better_candidates_and_half_of_the_equal_ones() -> None:
    among = retrieval.candidates(["q1", "q2"], ["a", "b"], ["c", "d"])
    table = np.array([[0.5, 0.9, 0.5, 0.1], [0.0, 0.0, 0.0, 0.0]])
    assert retrieval.ranks(lambda part: table[part], among).tolist() == [2.5, 2.5]


def test_the_query_itself_is_no_candidate() -> None:
    among = retrieval.candidates(["q", "r"], ["a", "q"])
    table = np.array([[0.5, 1.0], [0.1, 0.7]])
    assert retrieval.ranks(lambda part: table[part], among).tolist() == [1, 1]


def test_scores_of_ranks() -> None:
    found = retrieval.scores(np.array([1, 2, 6, 20]))
    assert [found[f"recall_at_{cut}"] for cut in (1, 5, 10)] == [0.25, 0.5, 0.75]
    assert found["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 6 + 1 / 20) / 4)


def test_a_similarity_that_is_no_number_is_not_hidden() -> None:
    among = retrieval.candidates(["q"], ["a"], ["b"])
    assert np.isnan(retrieval.scores(retrieval.ranks(lambda _: np.array([[np.nan, 0.1]]), among))["mrr"])


def test_overlap_is_one_for_the_same_text_and_zero_for_nothing_in_common() -> None:
    left, right = word_vectors(["warm soup"], ["warm soup", "warm soup"], ["warm soup", "zzz"])
    assert cosines(left, right).tolist() == pytest.approx([1, 0])
    assert shared_words(["warm soup"], ["Soup warm"]).tolist() == [1.0]
    assert shared_words([""], [""]).tolist() == [0.0]
