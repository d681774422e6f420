"""Exact match and F1 as SQuAD and MLQA measure them; thresholds on validation rows."""

import numpy as np
import pytest

from nlp_finetune.metrics.answers import best_threshold, score, tokens


def one(text: str, *gold: str) -> tuple[float, float]:
    scores = score([text], [list(gold)])
    return float(scores.exact[0]), float(scores.f1[0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The  Beggar's Bed.", "beggars bed"),
        ("an apple, a day", "apple day"),
        ("Athena", "athena"),
        ("5\u20136 km", "5\u20136 km"),  # SQuAD takes only ASCII punctuation away
        ("\u300a\u6ce1\u6ce1\u6218\u58eb\u300b", "\u6ce1 \u6ce1 \u6218 \u58eb"),
        ("\u97e9\u56fdNexon\u516c\u53f8", "\u97e9 \u56fd nexon \u516c \u53f8"),
        ("4\u5206\u949f\u3002", "4 \u5206 \u949f"),
    ],
)
def test_texts_are_normalised(text: str, words: str) -> None:
    assert " ".join(tokens(text)) == words


def test_f1_counts_words_in_common() -> None:
    # 2 of 3 words found are wanted, 2 of 4 wanted are found.
    assert one("two copper pennies", "two pennies in all") == (0.0, pytest.approx(2 * 2 / (3 + 4)))


def test_chinese_f1_counts_characters() -> None:
    assert one("\u4e0a\u6d77\u5e02", "\u4e0a\u6d77") == (0.0, pytest.approx(0.8))
    assert one("\u4e0a \u6d77", "\u4e0a\u6d77\uff01") == (1.0, 1.0)


def test_the_best_gold_answer_counts_for_each_measure() -> None:
    assert one("the ferry", "boat", "ferry", "the old ferry") == (1.0, 1.0)


def test_no_answer_is_right_only_where_there_is_none() -> None:
    assert one("") == (1.0, 1.0)
    assert one("noon") == (0.0, 0.0)
    assert one("", "noon") == (0.0, 0.0)


def test_kinds_of_questions_are_measured_apart_where_there_are_both() -> None:
    scores = score(["noon", "", "x"], [["noon"], [], []])
    assert scores.metrics() == {
        "exact_match": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
        "exact_match_answerable": 1.0,
        "f1_answerable": 1.0,
        "exact_match_unanswerable": 0.5,
        "f1_unanswerable": 0.5,
    }
    assert set(scores.metrics(np.array([0, 0]))) == {"exact_match", "f1"}


def test_the_threshold_separates_rows_that_gain_by_silence() -> None:
    scores, answered = np.array([5.0, 1.0, 4.0, -2.0]), np.array([1.0, 0.0, 0.5, 0.0])
    threshold = best_threshold(scores, answered, silent=1.0 - np.ceil(answered))
    assert threshold == pytest.approx(2.5)


def test_rows_with_the_same_score_are_not_separated() -> None:
    threshold = best_threshold(np.array([1.0, 1.0, 3.0]), np.array([0.9, 0.0, 1.0]), np.array([0.0, 1.0, 0.0]))
    # Silence on both gains 1.0, answers to both 0.9.
    assert threshold == pytest.approx(2.0)


def test_of_equal_thresholds_the_one_nearest_to_zero_is_taken() -> None:
    threshold = best_threshold(np.array([-3.0, 1.0, 9.0]), np.array([0.0, 0.0, 1.0]), np.zeros(3))
    assert threshold == pytest.approx(-1.0)
